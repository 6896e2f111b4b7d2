import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { bin } from './daemon.ts';
import { type CommandResult, eventually, run } from './processes.ts';

const top = path.resolve(import.meta.dirname, '../..');

/** A command line client under test: ours or one of containerd's. */
export interface CtrClient {
  name: string;
  file: string;
  /** Further flags of `images pull` in this flavour. */
  pullFlags: readonly string[];
  /** Goes through the transfer service, rather than fetching by itself. */
  transfer: boolean;
  /** Ours alone lacks commands that are listed as not yet built. */
  own: boolean;
  /** Why it cannot be tested here, if it cannot. */
  missing?: string;
}

function version(file: string): string {
  const result = spawnSync(file, ['--version'], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout : '';
}

/** Our ctr, Debian's (1.6), and containerd 2.3.4's with and without `--local`. */
export function ctrClients(): CtrClient[] {
  const debian = '/usr/bin/ctr';
  const go = path.join(top, '.cache/go-bin/ctr');
  const old = version(debian).includes(' 1.6.')
    ? {}
    : { missing: 'ctr 1.6 of Debian’s containerd package is not installed' };
  const recent = existsSync(go)
    ? {}
    : { missing: 'ctr 2.3.4 is not installed in .cache/go-bin (npm test does it when Go is there)' };
  const ours = existsSync(path.join(top, 'dist/ctr.js')) ? {} : { missing: 'npm run build has not been run' };
  return [
    { name: 'our ctr', file: bin.ctr, pullFlags: [], transfer: true, own: true, ...ours },
    { name: 'ctr 1.6', file: debian, pullFlags: [], transfer: false, own: false, ...old },
    { name: 'ctr 2.3.4', file: go, pullFlags: [], transfer: true, own: false, ...recent },
    { name: 'ctr 2.3.4 --local', file: go, pullFlags: ['--local'], transfer: false, own: false, ...recent },
  ];
}

/** Runs commands of one client against one daemon in one namespace. */
export class CtrSession {
  readonly client: CtrClient;
  readonly #address: string;
  readonly namespace: string;

  constructor(client: CtrClient, address: string, namespace: string) {
    this.client = client;
    this.#address = address;
    this.namespace = namespace;
  }

  arguments(args: readonly string[]): string[] {
    return ['-a', this.#address, '-n', this.namespace, ...args];
  }

  /** Runs it and expects exit code 0; answers what it printed. */
  async ok(...args: string[]): Promise<string> {
    const { stdout } = await run(this.client.file, this.arguments(args));
    return stdout;
  }

  /** Runs it, whatever comes. */
  try(...args: string[]): Promise<CommandResult> {
    return run(this.client.file, this.arguments(args), { mayFail: true });
  }

  /** Runs it under a terminal of its own (`script`), typing `input`. */
  async onTerminal(input: string, ...args: string[]): Promise<CommandResult> {
    const words = [this.client.file, ...this.arguments(args)].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    return run('script', ['-qec', words.join(' '), '/dev/null'], { input, mayFail: true });
  }
}

/**
 * Makes a view that a collection leaves alone. ctr makes views without a lease or a label, so one that is due may take it at
 * once, as in containerd; then it is made again.
 */
export async function keptView(ctr: CtrSession, by: readonly string[], key: string, parent: string): Promise<void> {
  await eventually(`view ${key} is kept`, async () => {
    await ctr.try('snapshots', ...by, 'view', key, parent);
    const { code } = await ctr.try('snapshots', ...by, 'label', key, 'containerd.io/gc.root=test');
    return code === 0 || undefined;
  });
}
