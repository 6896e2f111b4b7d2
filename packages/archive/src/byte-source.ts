/** Where a job's bytes come from: a file, a file that somebody is still writing, or a message port. Runs in a worker. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';
import type { JobContext } from './job.ts';
import { chunksFromPort } from './port-chunks.ts';

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
      yield* chunksFromPort(source.port, context.signal);
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
