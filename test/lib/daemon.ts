import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { endProcess, eventually } from './processes.ts';

const top = path.resolve(import.meta.dirname, '../..');

/** The programs as `npm run build` made them. */
export const bin = {
  gantryd: path.join(top, 'bin/gantryd'),
  ctr: path.join(top, 'bin/ctr'),
  shim: path.join(top, 'bin/gantry-shim'),
};

/** A gantryd of a test's own: root, state, sockets and log under one directory. It can be killed and started again. */
export class TestDaemon {
  readonly directory: string;
  readonly address: string;
  readonly logFile: string;
  /** More keys of the table for NRI's plugins. */
  nri = '';
  /** Where NRI's plugins connect. */
  nriSocket: string;
  #child: ChildProcess | undefined;
  #extraConfig: string;
  readonly #topLevel: string;

  /** @param topLevel keys of the configuration that are in no table; `extraConfig` begins inside the last one. */
  constructor(directory: string, extraConfig = '', topLevel = '') {
    this.directory = directory;
    this.address = path.join(directory, 'state/gantry.sock');
    this.logFile = path.join(directory, 'gantryd.log');
    this.nriSocket = path.join(directory, 'nri.sock');
    this.#extraConfig = extraConfig;
    this.#topLevel = topLevel;
    mkdirSync(directory, { recursive: true });
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the daemon does not run');
    return pid;
  }

  get root(): string {
    return path.join(this.directory, 'root');
  }

  get state(): string {
    return path.join(this.directory, 'state');
  }

  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
  }

  /** Starts it and waits until its socket takes connections. */
  async start(): Promise<void> {
    const config = path.join(this.directory, 'config.toml');
    writeFileSync(
      config,
      `version = 3
root = '${this.root}'
state = '${this.state}'
imports = []
${this.#topLevel}
[grpc]
  address = '${this.address}'
[plugins.'io.containerd.internal.v1.opt']
  path = '${this.directory}/opt'
[plugins.'io.containerd.nri.v1.nri']
  socket_path = '${this.nriSocket}'
  plugin_path = '${this.directory}/nri/plugins'
  plugin_config_path = '${this.directory}/nri/conf.d'
${this.nri}${this.#extraConfig}
`,
    );
    const log = createWriteStream(this.logFile, { flags: 'a' });
    const child = spawn(bin.gantryd, ['--config', config, '--log-level', 'debug'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#child = child;
    const closed = once(child, 'close');
    await eventually(
      'gantryd listens',
      async () => {
        if (child.exitCode !== null || child.signalCode !== null) {
          // Its last words may be on their way yet.
          await closed;
          await new Promise((resolve) => log.write('', resolve));
          throw new Error(`gantryd ended with ${child.exitCode ?? child.signalCode}:\n${this.log().slice(-4000)}`);
        }
        return (await answers(this.address)) ? true : undefined;
      },
      60_000,
    );
  }

  async kill(): Promise<void> {
    if (this.#child) await endProcess(this.#child, 'SIGKILL');
  }

  async stop(): Promise<void> {
    if (this.#child) await endProcess(this.#child, 'SIGTERM');
  }
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = net.connect(socket);
    connection.on('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.on('error', () => resolve(false));
  });
}
