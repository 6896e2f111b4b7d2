/** PAX extended headers (POSIX.1-2001 pax): `length key=value\n` records, read into a header and written from one. */
import type { ByteString } from '@gantry/sys/fast-at.ts';
import { TarError, type TarHeader } from './tar-header.ts';

/** Records in order; keys may repeat (GNU sparse 0.0). Values are byte strings. */
export type PaxRecords = [key: ByteString, value: ByteString][];

const XATTR = 'SCHILY.xattr.';

/** @throws TarError if a record is malformed. */
export function parsePax(data: Buffer): PaxRecords {
  const records: PaxRecords = [];
  let at = 0;
  while (at < data.length) {
    // GNU tar and others pad with NULs.
    if (data[at] === 0) break;
    const space = data.indexOf(0x20, at);
    if (space < 0 || space - at > 20) throw new TarError('invalid tar header: PAX record');
    const lengthText = data.toString('latin1', at, space);
    if (!/^[0-9]+$/.test(lengthText)) throw new TarError('invalid tar header: PAX record');
    const end = at + Number(lengthText);
    if (end > data.length || end <= space + 1 || data[end - 1] !== 0x0a) {
      throw new TarError('invalid tar header: PAX record');
    }
    const equals = data.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end || equals === space + 1) throw new TarError('invalid tar header: PAX record');
    records.push([data.toString('latin1', space + 1, equals), data.toString('latin1', equals + 1, end - 1)]);
    at = end;
  }
  return records;
}

/** Formats one record; its length counts itself. */
export function paxRecord(key: ByteString, value: ByteString): ByteString {
  const rest = key.length + value.length + 3;
  let total = rest + String(rest).length;
  if (rest + String(total).length !== total) total = rest + String(total).length;
  return `${total} ${key}=${value}\n`;
}

function number(value: string, what: string): number {
  if (!/^-?[0-9]+$/.test(value) || !Number.isSafeInteger(Number(value))) {
    throw new TarError(`invalid tar header: PAX ${what}`);
  }
  return Number(value);
}

function time(value: string): [seconds: number, nanos: number] {
  const match = /^(-?)([0-9]+)(?:\.([0-9]*))?$/.exec(value);
  if (!match) throw new TarError('invalid tar header: PAX time');
  const seconds = Number(match[2]);
  if (!Number.isSafeInteger(seconds)) throw new TarError('invalid tar header: PAX time');
  const nanos = Number((match[3] ?? '').padEnd(9, '0').slice(0, 9));
  if (!match[1]) return [seconds, nanos];
  return nanos === 0 ? [-seconds, 0] : [-seconds - 1, 1e9 - nanos];
}

function text(value: ByteString): ByteString {
  if (value.includes('\0')) throw new TarError('invalid tar header: NUL in PAX record');
  return value;
}

/** Overrides a header's fields by the records. What is about sparse files is answered for the reader to finish. */
export function applyPax(header: TarHeader, records: PaxRecords): Map<string, string> | undefined {
  let sparse: Map<string, string> | undefined;
  const pairs: string[] = [];
  for (const [key, value] of records) {
    if (key.startsWith(XATTR)) {
      header.xattrs ??= new Map();
      header.xattrs.set(text(key.slice(XATTR.length)), Buffer.from(value, 'latin1'));
      continue;
    }
    if (key.startsWith('GNU.sparse.')) {
      sparse ??= new Map();
      const name = key.slice('GNU.sparse.'.length);
      if (name === 'offset' || name === 'numbytes') pairs.push(value);
      else sparse.set(name, value);
      continue;
    }
    if (value === '') continue;
    switch (key) {
      case 'path':
        header.path = text(value);
        break;
      case 'linkpath':
        header.linkPath = text(value);
        break;
      case 'size': {
        const size = number(value, 'size');
        if (size < 0) throw new TarError('invalid tar header: negative size');
        const headerOnly = header.type >= '1' && header.type <= '6';
        header.size = headerOnly ? 0 : size;
        header.dataSize = header.size;
        break;
      }
      case 'uid':
        header.uid = number(value, 'uid');
        break;
      case 'gid':
        header.gid = number(value, 'gid');
        break;
      case 'uname':
        header.userName = text(value);
        break;
      case 'gname':
        header.groupName = text(value);
        break;
      case 'mtime':
        [header.mtime, header.mtimeNanos] = time(value);
        break;
      case 'atime':
        [header.atime, header.atimeNanos] = time(value);
        break;
    }
  }
  if (pairs.length > 0) sparse?.set('map', pairs.join(','));
  return sparse;
}
