import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { endProcess, eventually, run } from './processes.ts';

const debian = '/usr/bin/containerd';
/** containerd 2.3.4, where `npm test` puts it. */
export const containerd2 = path.resolve(import.meta.dirname, '../../.cache/go-bin/containerd');

/** What would reach beyond the directory. */
const disabled = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime',
  'io.containerd.internal.v1.opt',
  'io.containerd.nri.v1.nri',
];

/** A containerd, by default Debian's, with root, state and sockets under one directory. */
export class TestContainerd {
  readonly directory: string;
  readonly address: string;
  readonly #program: string;
  #child: ChildProcess | undefined;

  /** Why it cannot be used here, if it cannot. */
  static missing(program = debian): string | false {
    if (existsSync(program) && existsSync(path.join(path.dirname(program), 'containerd-shim-runc-v2'))) return false;
    return program === debian
      ? 'Debian’s containerd is not installed'
      : `${path.basename(program)} 2.3.4 is not in .cache/go-bin`;
  }

  constructor(directory: string, program = debian) {
    this.directory = directory;
    this.#program = program;
    this.address = path.join(directory, 'c.sock');
  }

  async start(): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    const config = path.join(this.directory, 'config.toml');
    writeFileSync(
      config,
      `version = 2
root = '${this.directory}/root'
state = '${this.directory}/state'
disabled_plugins = [${disabled.map((name) => `'${name}'`).join(', ')}]
[grpc]
  address = '${this.address}'
[ttrpc]
  address = '${this.address}.ttrpc'
`,
    );
    // Its shims stand beside it.
    const env = { ...process.env, PATH: `${path.dirname(this.#program)}:${process.env['PATH']}` };
    this.#child = spawn(this.#program, ['-c', config], { stdio: 'ignore', env });
    const ready = ['-a', this.address, 'version'];
    await eventually('containerd answers', async () =>
      (await run('/usr/bin/ctr', ready, { mayFail: true })).code === 0 ? true : undefined,
    );
  }

  async kill(): Promise<void> {
    if (this.#child) await endProcess(this.#child, 'SIGKILL');
  }

  async stop(): Promise<void> {
    if (this.#child) await endProcess(this.#child);
  }
}
