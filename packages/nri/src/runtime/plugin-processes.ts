import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';

/**
 * Notes which processes plugins are, one file each, so that those a killed daemon left are ended by the next: a plugin ends by itself
 * when its connection does, unless it hangs.
 */
export class PluginProcesses {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Ends what is noted and still is the same process. */
  async endLeftOver(): Promise<void> {
    const names = await readdir(this.#directory).catch(() => []);
    for (const name of names) {
      const pid = Number(name);
      if (Number.isInteger(pid) && pid > 1 && this.#noted(name) === startOf(pid)) process.kill(pid, 'SIGKILL');
      this.forget(pid);
    }
  }

  note(pid: number): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    writeFileSync(path.join(this.#directory, String(pid)), startOf(pid) ?? '', { mode: 0o600 });
  }

  forget(pid: number): void {
    rmSync(path.join(this.#directory, String(pid)), { force: true });
  }

  #noted(name: string): string {
    return readFileSync(path.join(this.#directory, name), 'latin1');
  }
}

/** When a process began, in ticks since the machine's start; undefined for none. A number used again tells itself apart by it. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name before may hold anything, parentheses too.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
