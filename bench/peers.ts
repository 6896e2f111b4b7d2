import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageService, RuntimeService } from '@gantry/api/gen/cri/v1/api_pb.js';
import { Containers } from '@gantry/api/gen/services/containers/v1/containers_pb.js';
import { Content } from '@gantry/api/gen/services/content/v1/content_pb.js';
import { Images } from '@gantry/api/gen/services/images/v1/images_pb.js';
import { Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { Tasks } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient, type GrpcTransport, grpcTransport } from '@gantry/rpc';
import { endProcess, eventually, freePort, processesMentioning } from '../test/lib/processes.ts';
import { CpuAccount } from './cpu-account.ts';

const top = path.resolve(import.meta.dirname, '..');

/** A daemon under measurement: gantryd or a containerd binary, each with a root, state and socket of its own. */
export class Peer {
  readonly name: string;
  readonly directory: string;
  readonly socket: string;
  /** Its command line client. */
  readonly ctr: string;
  readonly #command: string;
  readonly #path: string;
  /** Added to its configuration. */
  config = '';
  /** Whether plugins of NRI may connect, at `nriSocket`. Else the machine's own would take part. */
  nri = false;
  /** Added to the daemon's environment. */
  readonly environment: Record<string, string> = {};
  /** What it, its shims and its containers take of the processors. */
  readonly account: CpuAccount;
  /**
   * It sees version 1 cgroups only, in a mount namespace of its own: crun before 1.9 refuses a machine where some controllers are of
   * version 1 and some of version 2.
   */
  legacyCgroups = false;
  #mounted = false;
  #child: ChildProcess | undefined;
  #metrics = 0;
  #transport: GrpcTransport | undefined;

  constructor(name: string, directory: string, command: string, ctr: string) {
    this.name = name;
    this.directory = directory;
    this.socket = path.join(directory, 'state/daemon.sock');
    this.ctr = ctr;
    this.#command = command;
    this.account = new CpuAccount(`gantry-bench-${process.pid}-${path.basename(directory)}`);
    // containerd finds its shim on PATH: beside its own binary.
    this.#path = `${path.dirname(command)}:${process.env['PATH']}`;
  }

  static gantry(directory: string): Peer {
    return new Peer('gantry', directory, path.join(top, 'bin/gantryd'), path.join(top, 'bin/ctr'));
  }

  static containerd(directory: string, binary: string): Peer {
    const beside = path.join(path.dirname(binary), 'ctr');
    return new Peer('containerd', directory, binary, existsSync(beside) ? beside : 'ctr');
  }

  get nriSocket(): string {
    return path.join(this.directory, 'nri.sock');
  }

  /** Its state directory. */
  get state(): string {
    return path.join(this.directory, 'state');
  }

  /** Where its OCI runtimes keep theirs. */
  get runtimeRoot(): string {
    return path.join(this.state, 'oci');
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it; answers milliseconds until its socket answered. */
  async start(): Promise<number> {
    const startedAt = performance.now();
    const child = await this.launch();
    await eventually(
      `${this.name} answers`,
      async () => {
        if (child.exitCode !== null) throw this.#ended();
        if (!(await connects(this.socket))) return undefined;
        return this.version.version({}, { timeoutMs: 5000 }).catch(() => undefined);
      },
      60_000,
    );
    return performance.now() - startedAt;
  }

  #ended(): Error {
    return new Error(`${this.name} ended:\n${readFileSync(path.join(this.directory, 'log'), 'utf8').slice(-2000)}`);
  }

  /** Milliseconds from `startedAt` until somebody takes connections, tried every millisecond. */
  async listening(startedAt: number): Promise<number> {
    for (;;) {
      if (this.#child?.exitCode !== null) throw this.#ended();
      if (await connects(this.socket)) return performance.now() - startedAt;
      await sleep(1);
    }
  }

  /** Starts its process, and waits for nothing. */
  async launch(): Promise<ChildProcess> {
    this.#mountState();
    const config = path.join(this.directory, 'config.toml');
    this.#metrics = this.name === 'gantry' ? await freePort() : 0;
    writeFileSync(
      config,
      `version = 3
root = '${this.directory}/root'
state = '${this.directory}/state'
imports = []
[grpc]
  address = '${this.socket}'
[ttrpc]
  address = '${this.socket}.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '${this.directory}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = ${!this.nri}
  socket_path = '${this.nriSocket}'
  plugin_path = '${this.directory}/nri'
${this.#metrics === 0 ? '' : `[plugins.'io.containerd.server.v1.metrics']\n  address = '127.0.0.1:${this.#metrics}'\n`}${this.config}`,
    );
    const log = openSync(path.join(this.directory, 'log'), 'a');
    const command = ['-c', joinGroups, this.account.procs.join(' '), this.#command, '--config', config];
    const child = spawn(
      this.legacyCgroups ? 'unshare' : 'sh',
      this.legacyCgroups ? ['--mount', 'sh', '-c', legacyLayout, 'sh', ...command] : command,
      {
        stdio: ['ignore', log, log],
        env: { ...process.env, ...this.environment, PATH: this.#path },
      },
    );
    closeSync(log);
    this.#child = child;
    this.#transport = grpcTransport(this.socket, { namespace: 'bench' });
    return child;
  }

  /** The state is in memory, as /run is on machines with systemd. */
  #mountState(): void {
    if (this.#mounted) return;
    mkdirSync(this.state, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=711', 'gantry-bench', this.state]);
    this.#mounted = true;
  }

  /** Stops it for good. */
  async dispose(): Promise<void> {
    await this.stop();
    // Shims end a moment after the last container, or after the daemon.
    await eventually(`shims of ${this.name} end`, () => this.shims().length === 0 || undefined, 60_000);
    if (this.#mounted) execFileSync('umount', ['-l', this.state]);
    this.#mounted = false;
    await this.account.remove();
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#transport?.close();
    this.#transport = undefined;
    if (this.#child) await endProcess(this.#child, signal);
    this.#child = undefined;
  }

  #client<S extends Parameters<typeof createClient>[0]>(service: S) {
    if (!this.#transport) throw new Error(`${this.name} does not run`);
    return createClient(service, this.#transport);
  }

  get version() {
    return this.#client(Version);
  }
  get containers() {
    return this.#client(Containers);
  }
  get content() {
    return this.#client(Content);
  }
  get images() {
    return this.#client(Images);
  }
  get snapshots() {
    return this.#client(Snapshots);
  }
  get tasks() {
    return this.#client(Tasks);
  }
  get transfer() {
    return this.#client(Transfer);
  }
  /** CRI's. */

  get pods() {
    return this.#client(RuntimeService);
  }
  get podImages() {
    return this.#client(ImageService);
  }

  /** Process ids of its shims; those of one container where there is one for each. */
  shims(container?: string): number[] {
    return processesMentioning(this.directory)
      .filter(({ command }) => /^\S*shim/.test(command))
      .filter(({ command }) => this.name === 'gantry' || !container || command.includes(`-id ${container} `))
      .map(({ pid }) => pid);
  }

  /** Proportional set size of the daemon and all its shims, bytes. */
  memory(): number {
    return [...(this.pid === undefined ? [] : [this.pid]), ...this.shims()].reduce((sum, pid) => sum + pss(pid), 0);
  }

  /** User and system time of the daemon and of processes it has waited for, seconds. */
  cpuSeconds(): number {
    const stat = readFileSync(`/proc/${this.pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // utime, stime, cutime, cstime, in hundredths.
    return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) / 100;
  }

  /** From now on `peakMemory` is of what follows. */
  resetPeak(): void {
    writeFileSync(`/proc/${this.pid}/clear_refs`, '5');
  }

  /** The longest that Gantry's main thread was held up since the last look, seconds. */
  async longestBlock(): Promise<number | undefined> {
    if (this.#metrics === 0) return undefined;
    const text = await (await fetch(`http://127.0.0.1:${this.#metrics}/v1/metrics`)).text();
    return Number(/^nodejs_eventloop_lag_max_seconds (\S+)$/m.exec(text)?.[1]);
  }

  /** The largest resident size of the daemon since `resetPeak`, or ever, bytes. */
  peakMemory(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0) * 1024;
  }
}

/** Joins cgroups (their `cgroup.procs` are $0, apart by spaces) and becomes the rest of the arguments. */
const joinGroups = 'for file in $0; do echo $$ > "$file"; done; exec "$@"';

/** Leaves of /sys/fs/cgroup the version 1 hierarchies only, for this mount namespace, and becomes the shell of its arguments. */
const legacyLayout = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
for directory in /sys/fs/cgroup/*; do
  name=\${directory##*/}
  [ "$name" = unified ] && continue
  mkdir "/mnt/$name"
  mount --bind "$directory" "/mnt/$name"
done
mount --move /mnt /sys/fs/cgroup
exec sh "$@"`;

/** Proportional set size of a process, bytes; 0 if it has ended. */
export function pss(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0; // it ended between the two looks
  }
}

function connects(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = net.connect(socket);
    connection.once('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.once('error', () => resolve(false));
  });
}
