import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { endProcess, eventually, run } from './processes.ts';

const debian = '/usr/bin/containerd';
/** containerd 2.3.4, where `npm test` puts it. */
export const containerd2 = path.resolve(import.meta.dirname, '../../.cache/go-bin/containerd');

/** What would reach beyond the directory. */
const nri = 'io.containerd.nri.v1.nri';
const disabled = ['io.containerd.internal.v1.opt', nri];
const kubernetes = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime'];

/** A containerd, by default Debian's, with root, state and sockets under one directory. */
export class TestContainerd {
  readonly directory: string;
  readonly address: string;
  readonly #program: string;
  readonly #env: Record<string, string>;
  readonly #config: string;
  #child: ChildProcess | undefined;

  /** Why it cannot be used here, if it cannot. */
  static missing(program = debian): string | false {
    if (existsSync(program) && existsSync(path.join(path.dirname(program), 'containerd-shim-runc-v2'))) return false;
    return program === debian
      ? 'Debian’s containerd is not installed'
      : `${path.basename(program)} 2.3.4 is not in .cache/go-bin`;
  }

  /** @param env more of its environment, which its shims inherit; @param config more of its configuration */
  constructor(directory: string, program = debian, env: Record<string, string> = {}, config = '') {
    this.directory = directory;
    this.#program = program;
    this.#env = env;
    this.#config = config;
    this.address = path.join(directory, 'c.sock');
  }

  async start(): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    const config = path.join(this.directory, 'config.toml');
    // Its Kubernetes part and NRI are on for who configures them.
    const cri = kubernetes.some((name) => this.#config.includes(name));
    const off = [...disabled, ...(cri ? [] : kubernetes)].filter((name) => name !== nri || !this.#config.includes(nri));
    // The two plugins that CRI is now are named in version 3 first.
    writeFileSync(
      config,
      `version = ${this.#config.includes('io.containerd.cri.v1') ? 3 : 2}
root = '${this.directory}/root'
state = '${this.directory}/state'
disabled_plugins = [${off.map((name) => `'${name}'`).join(', ')}]
[grpc]
  address = '${this.address}'
[ttrpc]
  address = '${this.address}.ttrpc'
${this.#config}`,
    );
    // Its shims stand beside it.
    const env = {
      ...process.env,
      ...this.#env,
      PATH: `${path.dirname(this.#program)}:${this.#env['PATH'] ?? process.env['PATH']}`,
    };
    const log = openSync(path.join(this.directory, 'log'), 'a');
    this.#child = spawn(this.#program, ['-c', config], { stdio: ['ignore', log, log], env });
    closeSync(log);
    const ready = ['-a', this.address, 'version'];
    await eventually('containerd answers', async () =>
      (await run('/usr/bin/ctr', ready, { mayFail: true })).code === 0 ? true : undefined,
    );
  }

  /** What it has logged, and its shims through it. */
  log(): string {
    return readFileSync(path.join(this.directory, 'log'), 'utf8');
  }

  async kill(): Promise<void> {
    if (this.#child) await endProcess(this.#child, 'SIGKILL');
  }

  async stop(): Promise<void> {
    if (this.#child) await endProcess(this.#child);
  }
}
