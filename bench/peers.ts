import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Containers } from '@gantry/api/gen/services/containers/v1/containers_pb.js';
import { Content } from '@gantry/api/gen/services/content/v1/content_pb.js';
import { Images } from '@gantry/api/gen/services/images/v1/images_pb.js';
import { Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { Tasks } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient, type GrpcTransport, grpcTransport } from '@gantry/rpc';
import { endProcess, eventually, freePort, processesMentioning } from '../test/lib/processes.ts';

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
  /** Added to the daemon's environment. */
  readonly environment: Record<string, string> = {};
  #child: ChildProcess | undefined;
  #metrics = 0;
  #transport: GrpcTransport | undefined;

  constructor(name: string, directory: string, command: string, ctr: string) {
    this.name = name;
    this.directory = directory;
    this.socket = path.join(directory, 'state/daemon.sock');
    this.ctr = ctr;
    this.#command = command;
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

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it; answers milliseconds until its socket answered. */
  async start(): Promise<number> {
    mkdirSync(this.directory, { recursive: true });
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
  disable = true
${this.#metrics === 0 ? '' : `[plugins.'io.containerd.server.v1.metrics']\n  address = '127.0.0.1:${this.#metrics}'\n`}`,
    );
    const log = openSync(path.join(this.directory, 'log'), 'a');
    const startedAt = performance.now();
    const child = spawn(this.#command, ['--config', config], {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...this.environment, PATH: this.#path },
    });
    closeSync(log);
    this.#child = child;
    this.#transport = grpcTransport(this.socket, { namespace: 'bench' });
    await eventually(
      `${this.name} answers`,
      async () => {
        if (child.exitCode !== null)
          throw new Error(
            `${this.name} ended:\n${readFileSync(path.join(this.directory, 'log'), 'utf8').slice(-2000)}`,
          );
        if (!(await connects(this.socket))) return undefined;
        return this.version.version({}, { timeoutMs: 5000 }).catch(() => undefined);
      },
      60_000,
    );
    return performance.now() - startedAt;
  }

  async stop(): Promise<void> {
    await this.#transport?.close();
    this.#transport = undefined;
    if (this.#child) await endProcess(this.#child);
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

  /** Proportional set size of the daemon and all its shims, bytes. */
  memory(): number {
    const daemon = this.#child?.pid;
    let total = 0;
    const own = processesMentioning(this.directory).filter(
      ({ command }) => command.includes('shim') || command.includes('gantryd'),
    );
    for (const pid of new Set([...(daemon === undefined ? [] : [daemon]), ...own.map((process) => process.pid)]))
      total += pss(pid);
    return total;
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

function pss(pid: number): number {
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
