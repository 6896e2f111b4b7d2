import { mkdir } from 'node:fs/promises';
import { hasErrno, mkfifo } from '@gantry/sys';
import { type Cri, dirs } from '../cri.ts';
import type { ContainerIo, EarlierOutput } from '../logs/container-logs.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { StreamBridge, streamAddress, streamUrls } from './stream-bridge.ts';

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

/** Joins the container's FIFOs to streams, if its pod's runtime handler says so. @returns what the runtime is told of them */
export async function openStreams(
  cri: Cri,
  sandbox: PodSandbox,
  container: CriContainer,
  fifos: Fifos,
): Promise<Fifos> {
  const address = await streamAddress(cri, sandbox);
  if (address === '') return fifos;
  const urls = streamUrls(address, container.id, fifos);
  await bridge(cri, container, urls, fifos);
  return urls;
}

/** Goes on with the streams of one that an earlier daemon has started. */
export async function bridge(cri: Cri, container: CriContainer, urls: Fifos, fifos: Fifos): Promise<void> {
  container.bridge = new StreamBridge(cri);
  await container.bridge.open(urls, fifos);
}
