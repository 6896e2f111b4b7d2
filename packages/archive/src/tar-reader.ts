/**
 * Reads a tar from any byte stream as an async iterator of entries with their data as a stream: for image archives (docker-archive,
 * OCI layout), whose entries are few and large. Layers are unpacked by the worker, not by this.
 */
import { shownPath } from '@gantry/sys/fast-at.ts';
import { TarError, type TarHeader } from './tar-header.ts';
import { TarParser } from './tar-parser.ts';

export interface TarStreamEntry {
  /** Name in the archive, as it is there (not cleaned); UTF-8 read as such. */
  readonly name: string;
  /** Type flag: '0' file, '5' directory, '2' symlink, … */
  readonly type: string;
  readonly size: number;
  /** Target of a link. */
  readonly linkname: string;
  readonly header: TarHeader;
  /** The data. What is not read is skipped when the next entry is asked for. */
  readonly stream: AsyncIterable<Buffer>;
  /** All data at once. @throws TarError if there are more than `limit` bytes */
  bytes(limit: number): Promise<Buffer>;
}

type Item = { entry: TarHeader } | { data: Buffer } | { end: true };

/** @throws TarError if the archive is malformed or cut short; sparse entries are refused. */
export async function* tarReader(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarStreamEntry> {
  const items: Item[] = [];
  const parser = new TarParser({
    entry(header) {
      if (header.sparse) throw new TarError('sparse files are not expected in this archive');
      items.push({ entry: header });
    },
    // Views of the chunk: it is not asked for the next before they are used.
    data: (bytes, start, end) => items.push({ data: bytes.subarray(start, end) }),
    entryEnd: () => items.push({ end: true }),
  });
  const chunks = source[Symbol.asyncIterator]();
  let done = false;
  const next = async (): Promise<Item | undefined> => {
    while (items.length === 0) {
      if (done) return undefined;
      const chunk = await chunks.next();
      if (chunk.done) {
        done = true;
        parser.end();
      } else {
        const { buffer, byteOffset, byteLength } = chunk.value;
        parser.write(Buffer.from(buffer, byteOffset, byteLength));
      }
    }
    return items.shift();
  };
  try {
    for (let item = await next(); item; item = await next()) {
      if (!('entry' in item)) continue;
      let finished = false;
      const stream = (async function* () {
        while (!finished) {
          const piece = await next();
          if (!piece || 'end' in piece) finished = true;
          else if ('data' in piece) yield piece.data;
        }
      })();
      yield entryOf(item.entry, stream);
      while (!finished) {
        const piece = await next();
        if (!piece || 'end' in piece) finished = true;
      }
    }
  } finally {
    await chunks.return?.();
  }
}

function entryOf(header: TarHeader, stream: AsyncIterable<Buffer>): TarStreamEntry {
  return {
    name: Buffer.from(header.path, 'latin1').toString(),
    type: header.type,
    size: header.size,
    linkname: Buffer.from(header.linkPath, 'latin1').toString(),
    header,
    stream,
    async bytes(limit) {
      if (header.size > limit) throw new TarError(`entry ${shownPath(header.path)} is larger than ${limit} bytes`);
      const parts: Buffer[] = [];
      for await (const part of stream) parts.push(Buffer.from(part));
      return Buffer.concat(parts);
    },
  };
}
