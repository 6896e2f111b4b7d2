import { type FSWatcher, watch } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { failedPrecondition, StatusError } from '@gantry/api';
import { hasErrno } from '@gantry/sys';
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
  #watchers: FSWatcher[] = [];
  /** Of the directory that is watched. */
  #inode = 0n;
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
    await this.#watch();
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
    this.#watchPlugins();
  }

  /** A watch is of the directory that had the name when it began. */
  async #watch(): Promise<void> {
    const found = await stat(this.directory, { bigint: true }).catch((error) => {
      if (!hasErrno(error, 'ENOENT', 'ENOTDIR')) this.#log.warn('directory of CNI networks', { error });
      return undefined;
    });
    if (this.#closed || (found && found.ino === this.#inode && this.#watchers.length > 0)) return;
    this.#unwatch();
    if (found && this.#watchOne(this.directory)) this.#inode = found.ino;
    else this.#later();
  }

  /** Networks of 1.1 can have plugins in directories of their own. */
  #watchPlugins(): void {
    for (const watcher of this.#watchers.splice(1)) watcher.close();
    if (this.#watchers.length === 0) return;
    for (const { name } of this.#networks) this.#watchOne(path.join(this.directory, name));
  }

  #watchOne(directory: string): boolean {
    try {
      const watcher = watch(directory, { persistent: false }, () => void this.reload());
      watcher.on('error', () => {
        // The next reading begins it anew.
        this.#unwatch();
        this.#later();
      });
      this.#watchers.push(watcher);
      return true;
    } catch {
      return false;
    }
  }

  #unwatch(): void {
    for (const watcher of this.#watchers.splice(0)) watcher.close();
    this.#inode = 0n;
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
    this.#unwatch();
  }
}
