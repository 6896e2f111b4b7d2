import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { containerd2, TestContainerd } from './containerd.ts';
import { CriLab, crictl } from './cri-lab.ts';
import { endProcess, eventually, run } from './processes.ts';

const goBin = path.resolve(import.meta.dirname, '../../.cache/go-bin');
export const jsonPlugin = path.join(goBin, 'nri-json-plugin');
const runc = path.join(goBin, 'new/runc');

/** A call as the plugin has it: messages in protobuf's JSON. */
export interface ToldEvent {
  event: string;
  pod?: Record<string, unknown>;
  container?: Record<string, unknown>;
  [more: string]: unknown;
}

/** A runtime with CRI and NRI, whichever, with plugins on the reference's stub. */
export class NriSide {
  readonly name: string;
  readonly directory: string;
  readonly address: string;
  readonly nriSocket: string;
  readonly log: () => string;
  readonly #plugins = new Map<string, ChildProcess>();
  #count = 0;
  pod = '';
  podFile = '';

  constructor(name: string, directory: string, address: string, nriSocket: string, log: () => string) {
    this.name = name;
    this.directory = directory;
    this.address = address;
    this.nriSocket = nriSocket;
    this.log = log;
    mkdirSync(directory, { recursive: true });
  }

  crictl(args: readonly string[]) {
    const endpoint = `unix://${this.address}`;
    return run(crictl, ['-r', endpoint, '-i', endpoint, '-t', '60s', ...args], { mayFail: true });
  }

  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.crictl(args);
    if (code !== 0) throw new Error(`${this.name}: crictl ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  }

  file(name: string, content: object): string {
    const file = path.join(this.directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(content));
    return file;
  }

  async runPod(name: string, more: object = {}): Promise<string> {
    this.podFile = this.file(`pod-${name}`, {
      metadata: { name, namespace: 'lab', uid: `uid-${name}`, attempt: 0 },
      log_directory: path.join(this.directory, 'logs'),
      linux: {},
      ...more,
    });
    this.pod = await this.ok('runp', this.podFile);
    return this.pod;
  }

  /** Starts a plugin that connects; resolves when it takes part. */
  async plugin(index: string, name: string): Promise<void> {
    const before = this.#takenIn(index, name);
    const args = ['--socket-path', this.nriSocket, '--idx', index, '--name', name, '--dir', this.directory];
    this.#plugins.set(`${index}-${name}`, spawn(jsonPlugin, args, { stdio: 'ignore' }));
    await eventually(`${name} takes part in ${this.name}`, () =>
      this.#takenIn(index, name) > before ? true : undefined,
    );
  }

  #takenIn(index: string, name: string): number {
    return this.log()
      .split('\n')
      .filter((line) => line.includes(`${index}-${name}`) && /connected and synchronized/.test(line)).length;
  }

  async endPlugin(id: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#plugins.get(id);
    this.#plugins.delete(id);
    if (child) await endProcess(child, signal);
  }

  async endPlugins(): Promise<void> {
    for (const id of [...this.#plugins.keys()]) await this.endPlugin(id);
  }

  /** What the plugin answers from now on; absent: nothing. */
  answer(id: string, answers?: object): void {
    const file = path.join(this.directory, `${id}.json`);
    if (answers) writeFileSync(file, JSON.stringify(answers));
    else rmSync(file, { force: true });
  }

  told(id: string): ToldEvent[] {
    const file = path.join(this.directory, `${id}.log`);
    if (!existsSync(file)) return [];
    return readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as ToldEvent);
  }

  create(more: object = {}): Promise<{ code: number; stdout: string; stderr: string }> {
    const name = `c${++this.#count}`;
    const config = this.file(name, {
      metadata: { name, attempt: 0 },
      image: { image: 'busybox:1' },
      command: ['sleep', '1000'],
      log_path: `${name}.log`,
      linux: {},
      ...more,
    });
    return this.crictl(['create', this.pod, config, this.podFile]);
  }

  async spec(id: string): Promise<object> {
    return (JSON.parse(await this.ok('inspect', id)) as { info: { runtimeSpec: object } }).info.runtimeSpec;
  }
}

/** Gantry and containerd 2.3.4 side by side, with the same images, networks, devices and programs. */
export class NriSides {
  readonly lab: CriLab;
  readonly containerd: TestContainerd;
  readonly gantry: NriSide;
  readonly reference: NriSide;
  readonly #directory: string;
  readonly #number: number;

  static missing(): string | false {
    if (!existsSync(jsonPlugin)) return 'nri-json-plugin is not in .cache/go-bin (npm test compiles it)';
    if (!existsSync(runc)) return 'runc 1.4 is not in .cache/go-bin';
    return CriLab.missing() || TestContainerd.missing(containerd2);
  }

  /** @param number tells networks of several apart; @param nri more keys of the table for NRI, of both */
  constructor(directory: string, number: number, nri = '') {
    this.#directory = directory;
    this.#number = number;
    const cdi = `'${directory}/cdi'`;
    this.lab = new CriLab(
      path.join(directory, 'g'),
      { bridge: `nrisides${number}`, subnet: `10.${number}.0.0/24` },
      `  cdi_spec_dirs = [${cdi}]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '${runc}'
[plugins.'io.containerd.service.v1.tasks-service']
  blockio_config_file = '${directory}/blockio.yaml'
`,
    );
    this.lab.daemon.nri = nri;
    const { daemon } = this.lab;
    const sides = path.join(directory, 's');
    this.gantry = new NriSide('gantry', path.join(sides, 'g'), daemon.address, daemon.nriSocket, () => daemon.log());
    const socket = path.join(directory, 'nri.sock');
    this.containerd = new TestContainerd(
      path.join(directory, 'c'),
      containerd2,
      {},
      `[plugins.'io.containerd.nri.v1.nri']
  disable = false
  socket_path = '${socket}'
  plugin_path = '${directory}/c/plugins'
  plugin_config_path = '${directory}/c/conf.d'
${nri}[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = 'registry.k8s.io/pause:3.10.2'
  restrict_oom_score_adj = true
  cdi_spec_dirs = [${cdi}]
  [plugins.'io.containerd.grpc.v1.cri'.registry]
    config_path = '${directory}/g/hosts'
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = '/usr/lib/cni'
    conf_dir = '${directory}/c/cni'
  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
      BinaryName = '${runc}'
[plugins.'io.containerd.service.v1.tasks-service']
  blockio_config_file = '${directory}/blockio.yaml'
`,
    );
    this.reference = new NriSide('containerd', path.join(sides, 'c'), this.containerd.address, socket, () =>
      this.containerd.log(),
    );
  }

  get both(): readonly NriSide[] {
    return [this.gantry, this.reference];
  }

  async start(): Promise<void> {
    for (const directory of ['cdi', 'c/cni']) mkdirSync(path.join(this.#directory, directory), { recursive: true });
    writeFileSync(path.join(this.#directory, 'blockio.yaml'), 'Classes:\n  slow:\n    - Weight: 80\n');
    await this.lab.start();
    const ipam = {
      type: 'host-local',
      dataDir: `${this.#directory}/c/ipam`,
      ranges: [[{ subnet: `10.${this.#number}.1.0/24` }]],
    };
    writeFileSync(
      path.join(this.#directory, 'c/cni/10-lab.conflist'),
      JSON.stringify({
        cniVersion: '1.0.0',
        name: `nrisidec${this.#number}`,
        plugins: [{ type: 'bridge', bridge: `nrisidec${this.#number}`, isGateway: true, ipam }],
      }),
    );
    await this.containerd.start();
    await eventually('containerd’s CRI answers', async () =>
      (await this.reference.crictl(['pods'])).code === 0 ? true : undefined,
    );
    for (const side of this.both) await side.ok('pull', 'busybox:1');
  }

  async close(): Promise<void> {
    for (const side of this.both) {
      side.answer('10-first');
      side.answer('20-second');
      await side.ok('rmp', '-a', '-f').catch(() => undefined);
      await side.endPlugins();
    }
    await this.lab.close();
    await this.containerd.stop();
    this.#endShims();
    await run('ip', ['link', 'del', `nrisidec${this.#number}`], { mayFail: true });
  }

  /** containerd forgets that of a pod that a plugin has refused. */
  #endShims(): void {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      let words: string[];
      try {
        words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      } catch {
        continue;
      }
      if (words[0]?.endsWith('containerd-shim-runc-v2') && words.includes(this.containerd.address)) {
        process.kill(Number(pid), 'SIGKILL');
      }
    }
  }
}
