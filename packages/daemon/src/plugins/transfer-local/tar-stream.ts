import { unknown } from '@gantry/api';
import type { TarHeader } from '@gantry/archive/tar-header.ts';
import { TarParser } from '@gantry/archive/tar-parser.ts';

/** Archives of images as streams: files one after another, each read before the next is looked at. */

export interface TarFile {
  name: string;
  type: 'file' | 'symlink' | 'other';
  /** Target of a symlink. */
  link: string;
  /** Bytes. */
  size: number;
  /** Must be read to its end. */
  data: AsyncIterable<Uint8Array>;
}

type Part = { header: TarHeader } | { bytes: Uint8Array } | { end: true };

/** Calls back for each entry in turn and waits for it. @throws Unknown if the archive is broken or cut off. */
export async function readTar(
  bytes: AsyncIterable<Uint8Array>,
  onFile: (file: TarFile) => Promise<void>,
): Promise<void> {
  const parts = readParts(bytes);
  for (;;) {
    const next = await parts.next();
    if (next.done) return;
    if (!('header' in next.value)) continue;
    const { header } = next.value;
    const data = (async function* (): AsyncGenerator<Uint8Array> {
      for (;;) {
        const part = await parts.next();
        if (part.done) throw unknown('unexpected EOF');
        if ('end' in part.value) return;
        if ('bytes' in part.value) yield part.value.bytes;
      }
    })();
    await onFile({
      name: Buffer.from(header.path, 'latin1').toString(),
      type:
        header.type === '0' || header.type === '7' || header.type === '\0'
          ? 'file'
          : header.type === '2'
            ? 'symlink'
            : 'other',
      link: Buffer.from(header.linkPath, 'latin1').toString(),
      size: header.size,
      data,
    });
    for await (const _ of data); // What the callback left unread.
  }
}

async function* readParts(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Part> {
  let parts: Part[] = [];
  let open = false;
  const parser = new TarParser({
    entry: (header) => {
      open = true;
      parts.push({ header });
    },
    data: (buffer, start, end) => parts.push({ bytes: buffer.subarray(start, end) }),
    entryEnd: () => {
      open = false;
      parts.push({ end: true });
    },
  });
  for await (const chunk of bytes) {
    try {
      parser.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    } catch (error) {
      throw unknown(`invalid image archive: ${(error as Error).message}`, error);
    }
    const ready = parts;
    parts = [];
    // The parser's data point into the chunk, which nobody else uses now.
    yield* ready;
  }
  if (open) throw unknown('invalid image archive: unexpected EOF');
}

/** A name without `.`, `..` or doubled slashes, never leading outside: only used as a key. */
export function cleanName(name: string): string {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

const block = 512;

/** The header of a file or folder (a name that ends in `/`), owned by root, dated 1970: the same archive each time. */
export function tarHeader(name: string, size: number, mode: number): Buffer {
  const long = Buffer.byteLength(name) > 100;
  const header = Buffer.alloc(block);
  header.write(long ? name.slice(-100) : name, 0, 100);
  const octal = (value: number, at: number, length: number): void => {
    header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, length, 'latin1');
  };
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  if (size < 8 ** 11) octal(size, 124, 12);
  else {
    // Over 8 GiB: base-256, as GNU tar and Go write it.
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(size), 128);
  }
  octal(0, 136, 12);
  header.write('        ', 148, 8, 'latin1');
  header.write(name.endsWith('/') ? '5' : '0', 156, 1, 'latin1');
  header.write('ustar\x0000', 257, 8, 'latin1');
  checksum(header);
  return long ? Buffer.concat([paxHeader(name), header]) : header;
}

function checksum(header: Buffer): void {
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
}

/** A name over 100 bytes goes into a PAX record before the entry. */
function paxHeader(name: string): Buffer {
  const body = ` path=${name}\n`;
  let length = Buffer.byteLength(body);
  length += String(length + String(length).length).length;
  const record = Buffer.from(`${length}${body}`);
  const header = tarHeader('PaxHeaders.0/name', record.length, 0o644);
  header.write('        ', 148, 8, 'latin1');
  header.write('x', 156, 1, 'latin1');
  checksum(header);
  return Buffer.concat([header, record, padding(record.length)]);
}

/** Zeros from the end of a file's bytes to the next block. */
export function padding(size: number): Buffer {
  return Buffer.alloc((block - (size % block)) % block);
}

/** The end of an archive. */
export const tarEnd = Buffer.alloc(2 * block);
