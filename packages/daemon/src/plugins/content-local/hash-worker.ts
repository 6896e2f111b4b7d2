// The thread that hashes content: running digests by number, fed from shared memory while a client writes, or from the
// file itself when an ingest is resumed, adopted, or committed under another algorithm.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { internal } from '@gantry/api';
import { serveJobs } from '../../core/workers/worker-jobs.ts';

const running = new Map<number, Hash>();
const block = Buffer.allocUnsafeSlow(1024 * 1024);

export interface UpdateJob {
  stream: number;
  data: SharedArrayBuffer;
  length: number;
}

export interface FileJob {
  stream: number;
  algorithm: string;
  path: string;
  /** Bytes from the beginning of the file. */
  size: number;
}

function current(stream: number): string {
  const hash = running.get(stream);
  if (!hash) throw internal(`hash ${stream} is not running`);
  return hash.copy().digest('hex');
}

serveJobs({
  /** Adds bytes; answers the digest so far. */
  update({ stream, data, length }: UpdateJob): string {
    running.get(stream)?.update(new Uint8Array(data, 0, length));
    return current(stream);
  },
  /** Starts anew from the first bytes of a file; answers their digest. */
  file({ stream, algorithm, path, size }: FileJob): string {
    const hash = createHash(algorithm);
    const fd = openSync(path, 'r');
    try {
      for (let offset = 0; offset < size; ) {
        const count = readSync(fd, block, 0, Math.min(block.length, size - offset), offset);
        if (count === 0) throw internal(`${path} ends at ${offset}, expected ${size} bytes`);
        hash.update(count === block.length ? block : block.subarray(0, count));
        offset += count;
      }
    } finally {
      closeSync(fd);
    }
    running.set(stream, hash);
    return current(stream);
  },
  end({ stream }: { stream: number }): void {
    running.delete(stream);
  },
});
