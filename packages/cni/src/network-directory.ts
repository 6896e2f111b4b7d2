import { type FSWatcher, watch } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { failedPrecondition, StatusError } from '@gantry/api';
import { loadNetworks, type NetworkConfig, notInitialized } from './network-config.ts';

/** Where warnings go: a `Logger` of the daemon is one. */
export interface NetworkLog {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
}

/** How often a directory that is gone is looked for, milliseconds. */
const lookMs = 1000;

/** The networks that a directory of configuration files has: read again whenever something in it changes, and when it comes back. */
export class NetworkDirectory {
  readonly directory: string;
  readonly max: number;
  readonly #log: NetworkLog;
  #networks: NetworkConfig[] = [];
  #problem: string | undefined;
  readonly #watches = new Map<string, { watcher: FSWatcher; inode: bigint }>();
  #timer: NodeJS.Timeout | undefined;
  #loading: Promise<void> | undefined;
  #again = false;
  #closed = false;

  /** `max`: how many networks count, by order of file names; 0: all. */
  constructor(directory: string, max: number, log: NetworkLog) {
    this.directory = directory;
    this.max = max;
    this.#log = log;
  }

  /** Makes the directory if it is not there, and reads it. What is wrong with its files is no error here. */
  async open(): Promise<void> {
    try {
      // Others than root read files beside it.
      await mkdir(path.dirname(this.directory), { recursive: true, mode: 0o755 });
      await mkdir(this.directory, { recursive: true, mode: 0o700 });
    } catch (error) {
      this.#log.warn('directory of CNI networks cannot be made', { error, directory: this.directory });
    }
    await this.reload();
  }

  /** @throws FailedPrecondition if there is none that can be used */
  networks(): readonly NetworkConfig[] {
    if (this.#networks.length === 0) throw failedPrecondition(notInitialized);
    return this.#networks;
  }

  /** How reading it went last: `OK`, or what is wrong. */
  get loadStatus(): string {
    return this.#problem ?? 'OK';
  }

  /** Reads it again. One reading serves all who ask meanwhile, if it began after they asked. */
  async reload(): Promise<void> {
    this.#again = true;
    this.#loading ??= this.#loadWhileAsked().finally(() => {
      this.#loading = undefined;
    });
    await this.#loading;
  }

  async #loadWhileAsked(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false;
      await this.#load();
    }
  }

  async #load(): Promise<void> {
    // First, so that what is written while it is read is seen.
    await this.#watch(this.directory);
    if (!this.#watches.has(this.directory)) this.#later();
    try {
      this.#networks = await loadNetworks(this.directory, this.max);
      if (this.#problem !== undefined) this.#log.info('CNI networks can be used', { directory: this.directory });
      this.#problem = undefined;
    } catch (error) {
      this.#networks = [];
      const problem = `cni config load failed: ${StatusError.from(error).message}: failed to load cni config`;
      if (problem !== this.#problem) this.#log.warn(problem, { directory: this.directory });
      this.#problem = problem;
    }
    // Networks of 1.1 can have plugins in directories of their own.
    const wanted = this.#networks.map(({ name }) => path.join(this.directory, name));
    for (const directory of wanted) if (await this.#watch(directory)) this.#again = true;
    for (const directory of this.#watches.keys())
      if (directory !== this.directory && !wanted.includes(directory)) this.#unwatch(directory);
  }

  /** A watch is of the directory that had the name when it began. Answers whether there is a new one. */
  async #watch(directory: string): Promise<boolean> {
    const inode = await stat(directory, { bigint: true }).then(
      ({ ino }) => ino,
      () => undefined,
    );
    if (this.#closed || (inode !== undefined && this.#watches.get(directory)?.inode === inode)) return false;
    this.#unwatch(directory);
    if (inode === undefined) return false;
    try {
      const watcher = watch(directory, { persistent: false }, () => void this.reload());
      watcher.on('error', () => {
        // The next reading begins it anew.
        this.#unwatch(directory);
        this.#later();
      });
      this.#watches.set(directory, { watcher, inode });
      return true;
    } catch (error) {
      this.#log.debug('directory of CNI networks cannot be watched', { error, directory });
      return false;
    }
  }

  #unwatch(directory: string): void {
    this.#watches.get(directory)?.watcher.close();
    this.#watches.delete(directory);
  }

  #later(): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.reload(), lookMs);
    this.#timer.unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const directory of [...this.#watches.keys()]) this.#unwatch(directory);
  }
}
