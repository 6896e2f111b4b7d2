// A containerd and the daemon that takes over from it, for tests that go there and back.
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import type { CtrClient } from './clients.ts';
import { CtrSession } from './clients.ts';
import { TestContainerd } from './containerd.ts';
import { bin, TestDaemon } from './daemon.ts';
import { type CommandResult, run } from './processes.ts';

export class Migration {
  readonly containerd: TestContainerd;
  readonly daemon: TestDaemon;
  readonly namespace: string;
  readonly #client: CtrClient;

  /** @param namespace of this run alone: containerd's shims keep containers of all daemons in one place. @param more environment and configuration of containerd, and the daemon's own configuration */
  constructor(
    directory: string,
    program: string,
    namespace: string,
    client: CtrClient,
    more: { env?: Record<string, string>; config?: string; ours?: string } = {},
  ) {
    this.containerd = new TestContainerd(path.join(directory, 'c'), program, more.env, more.config);
    this.daemon = new TestDaemon(path.join(directory, 'd'), more.ours);
    this.namespace = namespace;
    this.#client = client;
  }

  /** containerd's root directory. */
  get root(): string {
    return path.join(this.containerd.directory, 'root');
  }

  /** The client at containerd, and at the daemon that takes over. */
  get before(): CtrSession {
    return new CtrSession(this.#client, this.containerd.address, this.namespace);
  }

  get after(): CtrSession {
    return new CtrSession(this.#client, this.daemon.address, this.namespace);
  }

  arguments(...flags: string[]): string[] {
    const { root, state, address, directory } = this.daemon;
    const own = [
      '--root',
      root,
      '--state',
      state,
      '--address',
      address,
      '--config',
      path.join(directory, 'carried.toml'),
    ];
    const theirs = ['--config', path.join(this.containerd.directory, 'config.toml')];
    return [...own, 'migrate', '--from-containerd', ...(flags.includes('--back') ? [] : theirs), ...flags];
  }

  /** `gantryd migrate --from-containerd` with these flags. */
  migrate(...flags: string[]): Promise<CommandResult> {
    return run(bin.gantryd, this.arguments(...flags), { mayFail: true });
  }

  /** Names, modes, times of change and bytes of all that is under containerd's root. */
  fingerprint(): string {
    const hash = createHash('sha256');
    for (const entry of readdirSync(this.root, { recursive: true, encoding: 'utf8' }).sort()) {
      const file = path.join(this.root, entry);
      const stat = lstatSync(file, { bigint: true });
      hash.update(`${entry} ${stat.mode} ${stat.mtimeNs} ${stat.isDirectory() ? 0 : stat.size}\n`);
      if (stat.isFile()) hash.update(readFileSync(file));
      if (stat.isSymbolicLink()) hash.update(readlinkSync(file));
    }
    return hash.digest('hex');
  }

  /** What ctr lists, without how long ago things were made. */
  async lists(ctr: CtrSession): Promise<Record<string, string[]>> {
    const found: Record<string, string[]> = {};
    const commands = [
      ['namespaces', 'ls'],
      ['containers', 'ls'],
      ['tasks', 'ls'],
      ['images', 'ls'],
      ['content', 'ls'],
      ['snapshots', 'ls'],
      ['leases', 'ls'],
    ];
    for (const command of commands) {
      const text = await ctr.ok(...command);
      const rows = text.replace(/\b(?:\d+|About an?|Less than an?) (?:second|minute|hour)s?\b/g, 'AGO');
      // Columns are as wide as their widest cell, and older clients print labels in any order.
      found[command.join(' ')] = rows
        .trim()
        .split('\n')
        .map((row) =>
          row
            .trim()
            .split(/\s+/)
            .map((cell) => cell.split(',').sort().join())
            .join(' '),
        )
        .sort();
    }
    return found;
  }

  /** State and pid of each task. */
  async tasks(ctr: CtrSession): Promise<Record<string, { pid: number; state: string }>> {
    const rows = (await ctr.ok('tasks', 'ls')).trim().split('\n').slice(1);
    const cells = rows.map((row) => row.split(/\s+/));
    return Object.fromEntries(cells.map(([id, pid, state]) => [id!, { pid: Number(pid), state: state! }]));
  }
}
