import { mkdir } from 'node:fs/promises';
import { hasErrno, mkfifo } from '@gantry/sys';
import { type Cri, dirs } from '../cri.ts';
import type { ContainerIo, EarlierOutput } from '../logs/container-logs.ts';
import type { CriContainer } from '../store/cri-container.ts';

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

/** The FIFOs of a container's first process. */
export function containerFifos(cri: Cri, { id, metadata: { config } }: CriContainer): Promise<Fifos> {
  const wanted = { stdin: config.stdin, stdout: true, stderr: !config.tty };
  return makeFifos(`${dirs.containerState(cri, id)}/io`, id, wanted);
}

/** Where is kept what the log worker has not written yet. */
export function logStateDirectory(cri: Cri, id: string): string {
  return `${dirs.containerState(cri, id)}/log`;
}

/** Begins to copy a container's streams, or goes on with what an earlier daemon has begun. */
export async function openContainerIo(
  cri: Cri,
  container: CriContainer,
  fifos: Fifos,
  earlier?: EarlierOutput,
): Promise<ContainerIo> {
  const { id, metadata } = container;
  const io = await cri.logs.open(
    {
      containerId: id,
      ...fifos,
      terminal: metadata.config.tty,
      stdinOnce: metadata.config.stdinOnce,
      logPath: metadata.logPath,
      maxLineSize: cri.config.runtime.max_container_log_line_size,
      stateDirectory: logStateDirectory(cri, id),
    },
    earlier,
  );
  container.io = io;
  return io;
}
