/** Where a job's bytes come from: a file, a file that somebody is still writing, or a message port. Runs in a worker. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';
import type { JobContext } from './job.ts';

export type ByteSource =
  | { kind: 'file'; path: string; offset?: number; length?: number }
  /** A file that grows: the job's owner posts `{available: n}` (bytes from the start of the file) and at last `{end: true}`. */
  | { kind: 'growing'; path: string; available?: number }
  /** Chunks by `pumpToPort`. The port has to be in the transfer list. */
  | { kind: 'port'; port: MessagePort };

/** What the owner of a `growing` source posts. An `error` fails the job. */
export interface GrowthMessage {
  available?: number;
  end?: boolean;
  error?: string;
}

const PIECE = 512 << 10;

/** The source's bytes. A chunk may be overwritten once the next is asked for. */
export async function* readSource(source: ByteSource, context: JobContext): AsyncGenerator<Buffer> {
  switch (source.kind) {
    case 'file':
      yield* readFilePieces(source, context);
      return;
    case 'growing':
      yield* readGrowing(source, context);
      return;
    case 'port':
      yield* readPort(source.port, context);
  }
}

async function* readFilePieces(
  source: { path: string; offset?: number; length?: number },
  context: JobContext,
): AsyncGenerator<Buffer> {
  const fd = openSync(source.path, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(PIECE);
    let at = source.offset ?? 0;
    const end = source.length === undefined ? Number.MAX_SAFE_INTEGER : at + source.length;
    while (at < end) {
      context.signal.throwIfAborted();
      const n = readSync(fd, buffer, 0, Math.min(buffer.length, end - at), at);
      if (n === 0) return;
      at += n;
      yield buffer.subarray(0, n);
    }
  } finally {
    closeSync(fd);
  }
}

async function* readGrowing(source: { path: string; available?: number }, context: JobContext): AsyncGenerator<Buffer> {
  const fd = openSync(source.path, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(PIECE);
    let at = 0;
    let available = source.available ?? 0;
    let ended = false;
    for (;;) {
      while (at < available) {
        context.signal.throwIfAborted();
        const n = readSync(fd, buffer, 0, Math.min(buffer.length, available - at), at);
        if (n === 0) throw new Error(`unexpected EOF: ${source.path} is shorter than announced`);
        at += n;
        yield buffer.subarray(0, n);
      }
      if (ended) return;
      const message = (await context.nextMessage()) as GrowthMessage;
      if (message.error !== undefined) throw new Error(message.error);
      if (message.available !== undefined) available = Math.max(available, message.available);
      if (message.end) ended = true;
    }
  } finally {
    closeSync(fd);
  }
}

type PortMessage = { data: Uint8Array } | { end: true } | { error: string };

async function* readPort(port: MessagePort, context: JobContext): AsyncGenerator<Buffer> {
  const queue: PortMessage[] = [];
  let wake: (() => void) | undefined;
  const onAbort = () => wake?.();
  port.on('message', (message: PortMessage) => {
    queue.push(message);
    wake?.();
  });
  port.on('close', () => {
    queue.push({ error: 'unexpected EOF: the sender went away' });
    wake?.();
  });
  context.signal.addEventListener('abort', onAbort);
  try {
    for (;;) {
      context.signal.throwIfAborted();
      const message = queue.shift();
      if (!message) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
        continue;
      }
      if ('error' in message) throw new Error(message.error);
      if ('end' in message) return;
      yield Buffer.from(message.data.buffer, message.data.byteOffset, message.data.byteLength);
      port.postMessage('more');
    }
  } finally {
    context.signal.removeEventListener('abort', onAbort);
    port.close();
  }
}

/** Chunks on their way to a port before the first must have been taken. */
const IN_FLIGHT = 8;

/** Main thread: sends chunks to a job's port, waiting when it is behind. Resolves when all are sent or the job closed its end. */
export async function pumpToPort(chunks: AsyncIterable<Uint8Array>, port: MessagePort): Promise<void> {
  let inFlight = 0;
  let closed = false;
  let wake: (() => void) | undefined;
  port.on('message', () => {
    inFlight--;
    wake?.();
  });
  port.on('close', () => {
    closed = true;
    wake?.();
  });
  try {
    for await (const chunk of chunks) {
      while (inFlight >= IN_FLIGHT && !closed) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (closed) return;
      inFlight++;
      port.postMessage({ data: chunk });
    }
    port.postMessage({ end: true });
  } catch (error) {
    port.postMessage({ error: error instanceof Error ? error.message : String(error) });
    throw error;
  }
}
