import { mkdir } from 'node:fs/promises';
import { hasErrno, mkfifo } from '@gantry/sys';

/** The FIFOs of a process. */
export interface Fifos {
  stdin: string;
  stdout: string;
  stderr: string;
}

/** Makes those wanted in a directory; '' for the others. @param name what their names begin with */
export async function makeFifos(
  directory: string,
  name: string,
  wanted: { stdin: boolean; stdout: boolean; stderr: boolean },
): Promise<Fifos> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const make = (kind: keyof Fifos): string => {
    if (!wanted[kind]) return '';
    const file = `${directory}/${name}-${kind}`;
    try {
      mkfifo(file, 0o700);
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
    return file;
  };
  return { stdin: make('stdin'), stdout: make('stdout'), stderr: make('stderr') };
}
