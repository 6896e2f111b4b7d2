import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { kill } from '@gantry/sys';
import { type ProgramOptions, type ProgramResult, runProgram } from './run-program.ts';

/** In the environment of every program, so that a later daemon can tell it from another with the same number. */
const markName = 'GANTRY_PROGRAM';

/**
 * Runs helper programs and remembers on disk which are running: what a daemon that was killed left of them, the next one ends.
 */
export class ProgramRunner {
  readonly #directory: string | undefined;
  readonly #mark: string = randomUUID();

  private constructor(directory: string | undefined) {
    this.#directory = directory;
  }

  /** @param directory for records, emptied at once; left out: nothing is remembered */
  static open(directory?: string): ProgramRunner {
    const runner = new ProgramRunner(directory);
    if (directory !== undefined) {
      endLeftovers(directory);
      rmSync(directory, { recursive: true, force: true });
    }
    return runner;
  }

  async run(options: ProgramOptions): Promise<ProgramResult> {
    const { env = process.env } = options;
    let record: string | undefined;
    try {
      return await runProgram({ ...options, env: { ...env, [markName]: this.#mark } }, (pid) => {
        record = this.#remember(pid);
      });
    } finally {
      if (record !== undefined) rmSync(record, { force: true });
    }
  }

  #remember(pid: number): string | undefined {
    if (this.#directory === undefined) return undefined;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const file = path.join(this.#directory, String(pid));
    writeFileSync(file, this.#mark);
    return file;
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** Kills what is left of recorded process groups. What left its group on purpose, as an agent does, is left alone. */
function endLeftovers(directory: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return;
  }
  const marks = new Map(names.map((name) => [name, readIfThere(path.join(directory, name))]));
  if (marks.size === 0) return;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    // After the name, which may hold anything: state, parent, process group.
    const group = readIfThere(`/proc/${entry}/stat`).split(') ').at(-1)?.split(' ')[2] ?? '';
    const mark = marks.get(group);
    if (!mark || !readIfThere(`/proc/${entry}/environ`).split('\0').includes(`${markName}=${mark}`)) continue;
    try {
      kill(Number(entry), 'SIGKILL');
    } catch {
      // It ended meanwhile.
    }
  }
}
