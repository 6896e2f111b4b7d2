import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { endProcess, eventually, run } from './processes.ts';

const program = '/usr/bin/containerd';

/** Debian's containerd with root, state and sockets under one directory. */
export class TestContainerd {
  readonly directory: string;
  readonly address: string;
  #child: ChildProcess | undefined;

  /** Why it cannot be used here, if it cannot. */
  static missing(): string | false {
    return existsSync(program) ? false : 'Debian’s containerd is not installed';
  }

  constructor(directory: string) {
    this.directory = directory;
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
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']
[grpc]
  address = '${this.address}'
[ttrpc]
  address = '${this.address}.ttrpc'
`,
    );
    this.#child = spawn(program, ['-c', config], { stdio: 'ignore' });
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
