import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { WebSocket } from 'ws';
import { endProcess, eventually, freePort, run } from './processes.ts';

/** The kubelet that `GANTRY_KUBELET=1 npm test` compiles. */
const built = path.resolve(import.meta.dirname, '../../.cache/go-bin/kubelet');

/** Parts of a pod's status that tests look at. */
export interface PodOnNode {
  metadata: { name: string; uid: string };
  status: {
    phase: string;
    podIP?: string;
    conditions?: { type: string; status: string }[];
    initContainerStatuses?: ContainerOnNode[];
    containerStatuses?: ContainerOnNode[];
  };
}

export interface ContainerOnNode {
  name: string;
  ready: boolean;
  restartCount: number;
  containerID?: string;
  state: ContainerStates;
  lastState: ContainerStates;
}

interface ContainerStates {
  waiting?: { reason: string; message?: string };
  running?: { startedAt: string };
  terminated?: { exitCode: number; reason: string; message?: string };
}

/** What the kubelet would set for the whole machine, by the names under /proc/sys: it is shown that it need not. */
export const kernelSettings = {
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/keys/root_maxbytes': 25_000_000,
};

/** A kubelet without an API server: its pods are files in a directory. All it writes is under one directory. */
export class TestKubelet {
  readonly directory: string;
  readonly #program: string;
  readonly #runtime: string;
  /** The top of its cgroups, in each hierarchy. */
  readonly #cgroup = `gantry-kubelet-${process.pid}`;
  #port = 0;
  #child: ChildProcess | undefined;

  /** The program: what GANTRY_KUBELET names, or the one that was compiled. */
  static program(): string {
    const named = process.env['GANTRY_KUBELET'] ?? '';
    return named.startsWith('/') ? named : built;
  }

  static missing(): string | false {
    if (!process.env['GANTRY_KUBELET'])
      return 'compiling a kubelet takes minutes: set GANTRY_KUBELET=1, or to the path of one';
    return existsSync(TestKubelet.program())
      ? false
      : 'there is no kubelet in .cache/go-bin (it takes Go to compile it)';
  }

  /** @param runtime the socket of a CRI runtime */
  constructor(directory: string, runtime: string) {
    this.directory = directory;
    this.#program = TestKubelet.program();
    this.#runtime = runtime;
    for (const part of ['manifests', 'root', 'logs', 'sys', 'pki'])
      mkdirSync(path.join(directory, part), { recursive: true });
  }

  get logFile(): string {
    return path.join(this.directory, 'kubelet.log');
  }

  /** Logs of pods. */
  get logs(): string {
    return path.join(this.directory, 'logs');
  }

  /** Starts it, or starts it again. @param settings more lines of its configuration; @param flags more of the command line */
  async start(settings = '', flags: readonly string[] = []): Promise<void> {
    this.#port ||= await freePort();
    const config = path.join(this.directory, 'kubelet.yaml');
    writeFileSync(
      config,
      `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: ${this.directory}/manifests
podLogsDir: ${this.logs}
containerRuntimeEndpoint: unix://${this.#runtime}
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /${this.#cgroup}
enforceNodeAllocatable: [pods]
makeIPTablesUtilChains: false
address: 127.0.0.1
port: ${this.#port}
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
fileCheckFrequency: 1s
syncFrequency: 1s
evictionHard: {memory.available: 1Mi, nodefs.available: 1%, imagefs.available: 1%}
${settings}`,
    );
    await this.#shareRoot();
    for (const top of hierarchies()) makeCgroup(top, this.#cgroup);
    const binds = Object.entries(kernelSettings).map(([name, value]) => {
      const file = path.join(this.directory, 'sys', name.replaceAll('/', '_'));
      writeFileSync(file, `${value}\n`);
      return `mount --bind '${file}' /proc/sys/${name}`;
    });
    const args = ['--config', config, '--root-dir', this.#root, '--cert-dir', path.join(this.directory, 'pki')];
    const log = openSync(this.logFile, 'a');
    const script = ['mount --make-rprivate /proc', ...binds, 'exec "$@"'].join(' && ');
    this.#child = spawn(
      'unshare',
      [
        ...['-m', '--propagation', 'unchanged', 'sh', '-c', script, 'sh'],
        ...[this.#program, ...args, '--hostname-override', 'node', '--containerd', this.#runtime, ...flags],
      ],
      { stdio: ['ignore', log, log] },
    );
    closeSync(log);
    const child = this.#child;
    await eventually(
      'the kubelet is healthy',
      async () => {
        if (child.exitCode !== null) throw new Error(`the kubelet ended: ${this.log().slice(-3000)}`);
        return (await this.get('/healthz').catch(() => undefined))?.body === 'ok' || undefined;
      },
      60_000,
    );
  }

  async stop(): Promise<void> {
    if (this.#child) await endProcess(this.#child);
  }

  /** Takes away what is mounted for it. Its pods must have gone. */
  async close(): Promise<void> {
    await this.stop();
    await run('umount', ['-R', this.#root], { mayFail: true });
    // runc makes groups in the empty second version beside the first, too.
    for (const top of [...hierarchies(), '/sys/fs/cgroup/unified']) removeCgroup(path.join(top, this.#cgroup));
    // Links that it makes whatever its directories are.
    const links = '/var/log/containers';
    for (const name of existsSync(links) ? readdirSync(links) : []) {
      const link = path.join(links, name);
      if (readlinkSync(link).startsWith(this.directory)) unlinkSync(link);
    }
  }

  log(): string {
    return readFileSync(this.logFile, 'utf8');
  }

  /** Has a static pod: JSON is YAML too. */
  addPod(name: string, spec: object): void {
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' }, spec };
    writeFileSync(path.join(this.directory, 'manifests', `${name}.yaml`), JSON.stringify(pod));
  }

  removePod(name: string): void {
    rmSync(path.join(this.directory, 'manifests', `${name}.yaml`), { force: true });
  }

  /** A pod by the name of its file, if the kubelet knows it. */
  async pod(name: string): Promise<PodOnNode | undefined> {
    const { body } = await this.get('/pods');
    const { items } = JSON.parse(body) as { items: PodOnNode[] | null };
    return items?.find(({ metadata }) => metadata.name === `${name}-node`);
  }

  /** One of its containers, of either kind. */
  async container(pod: string, name: string): Promise<ContainerOnNode | undefined> {
    const { status } = (await this.pod(pod)) ?? {};
    return [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].find(
      (one) => one.name === name,
    );
  }

  get(at: string, method = 'GET'): Promise<{ status: number; body: string }> {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
    https
      .request(
        `https://127.0.0.1:${this.#port}${at}`,
        { method, rejectUnauthorized: false, agent: false },
        (response) => text(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject),
      )
      .on('error', reject)
      .end();
    return promise;
  }

  /** A WebSocket through the kubelet to the runtime's streaming server. */
  connect(at: string, protocol: string): WebSocket {
    return new WebSocket(`wss://127.0.0.1:${this.#port}${at}`, [protocol], { rejectUnauthorized: false });
  }

  get #root(): string {
    return path.join(this.directory, 'root');
  }

  /** Volumes that it mounts in its own mount namespace are to be seen by the runtime. */
  async #shareRoot(): Promise<void> {
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${this.#root} `)) return;
    await run('mount', ['--bind', this.#root, this.#root]);
    await run('mount', ['--make-shared', this.#root]);
  }
}

/** Where cgroups are: one directory, or one for each hierarchy of version 1. */
function hierarchies(): string[] {
  const mount = '/sys/fs/cgroup';
  if (existsSync(path.join(mount, 'cgroup.controllers'))) return [mount];
  return readdirSync(mount)
    .filter((name) => name !== 'unified')
    .map((name) => path.join(mount, name));
}

function makeCgroup(top: string, name: string): void {
  const directory = path.join(top, name);
  mkdirSync(directory, { recursive: true });
  if (path.basename(top) !== 'cpuset') return;
  for (const file of ['cpuset.cpus', 'cpuset.mems'])
    writeFileSync(path.join(directory, file), readFileSync(path.join(top, file)));
}

function removeCgroup(directory: string): void {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(path.join(directory, entry.name));
  rmdirSync(directory);
}
