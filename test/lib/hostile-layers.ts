import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type FixtureEntry, makeTar } from '@gantry/archive/testing/fixtures.ts';

/** Layers that somebody made who means no good, and what has to become of each. */
export interface HostileLayer {
  name: string;
  /** The blob as it is stored. Default: `tar`, gzip'd. */
  blob?: Buffer;
  /** What the image says is in it. */
  tar: Buffer;
  mediaType?: string;
  /** A pull fails saying this, or what it leaves in the snapshot: name, and how it begins. */
  becomes: RegExp | Record<string, string>;
}

const plain = 'application/vnd.oci.image.layer.v1.tar';
export const layerTypes = { plain, gzip: `${plain}+gzip`, zstd: `${plain}+zstd` };

/** A header of our own making, whatever it says, with the right checksum. */
function rawHeader(fields: {
  name: string;
  type?: string;
  size?: Buffer | string;
  more?: (block: Buffer) => void;
}): Buffer {
  const block = Buffer.alloc(512);
  block.write(fields.name, 0, 100, 'latin1');
  block.write('0000644\x000000000\x000000000\0', 100, 'latin1');
  const size = fields.size ?? '00000000000';
  if (typeof size === 'string') block.write(size, 124, 12, 'latin1');
  else size.copy(block, 124);
  block.write('14000000000\0', 136, 'latin1');
  block.write(fields.type ?? '0', 156, 'latin1');
  block.write('ustar  \0', 257, 'latin1');
  fields.more?.(block);
  block.write('        ', 148, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const end = Buffer.alloc(1024);
const TERABYTE = 2 ** 40;
const octal = (value: number) => `${value.toString(8).padStart(11, '0')}\0`;

function base256(value: bigint): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeBigInt64BE(value, 4);
  if (value < 0) bytes.fill(0xff, 0, 4);
  else bytes[0] = 0x80;
  return bytes;
}

/** GNU's old form of a sparse file: a terabyte with three bytes at its start. */
const gnuSparse = Buffer.concat([
  rawHeader({
    name: 'sparse',
    type: 'S',
    size: octal(512),
    more: (block) => {
      block.write(octal(0), 386, 'latin1');
      block.write(octal(512), 398, 'latin1');
      base256(BigInt(TERABYTE)).copy(block, 410);
      block.write(octal(0), 422, 'latin1');
      base256(BigInt(TERABYTE)).copy(block, 483);
    },
  }),
  Buffer.alloc(512, 'x'),
  end,
]);

const paxSparse = makeTar({
  path: 'sparse',
  size: TERABYTE,
  sparse: [{ offset: 0, length: 512 }],
  content: Buffer.concat([Buffer.from('1\n0\n512\n'.padEnd(512, '\0'), 'latin1'), Buffer.alloc(512, 'x')]),
});

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length++;
  return `${length}${rest}`;
}

function withPax(records: string): Buffer {
  const text = Buffer.from(records, 'latin1');
  const padded = Buffer.alloc(Math.ceil(text.length / 512) * 512);
  text.copy(padded);
  const header = rawHeader({ name: 'pax', type: 'x', size: octal(text.length) });
  return Buffer.concat([header, padded, makeTar({ path: 'file', content: 'x' })]);
}

/** `outside`: a directory that is none of the layer's business, with a file `secret`. */
export function hostileLayers(outside: string): HostileLayer[] {
  const inside = outside.slice(1);
  const up = '../'.repeat(20);
  const of = (name: string, ...entries: FixtureEntry[]) => ({ name, tar: makeTar(...entries) });
  const link = (path: string, linkPath: string) => ({ path, type: '2', linkPath });
  const hard = (path: string, linkPath: string) => ({ path, type: '1', linkPath });
  const good = makeTar({ path: 'file', content: 'fine' }, { path: 'large', content: Buffer.alloc(200_000, 'large ') });
  const packed = gzipSync(good);
  const changed = Buffer.from(packed);
  changed[packed.length - 6]! ^= 0xff;
  const badHeader = Buffer.from(good);
  badHeader[0]! ^= 1;
  const mid = Buffer.from(good);
  mid.fill(0x41, 1024, 1536);
  const deep = 'd/'.repeat(10_000);
  return [
    // Names and links that lead out are taken as if the root were the root.
    { ...of('names that climb out', { path: `${up}${inside}/pwned` }), becomes: { [`${inside}/pwned`]: '' } },
    { ...of('absolute names', { path: `${outside}/pwned` }), becomes: { [`${inside}/pwned`]: '' } },
    {
      ...of('an absolute link as a folder', link('out', outside), { path: 'out/pwned', content: 'x' }),
      becomes: { [`${inside}/pwned`]: 'x' },
    },
    {
      ...of('a relative link as a folder', link('out', `${up}${inside}`), { path: 'out/pwned', content: 'x' }),
      becomes: { [`${inside}/pwned`]: 'x' },
    },
    {
      ...of('a link that is replaced by a file', link('file', `${outside}/secret`), { path: 'file', content: 'x' }),
      becomes: { file: 'x' },
    },
    {
      ...of('a link into /proc', link('cwd', '/proc/self/cwd'), { path: 'cwd/pwned', content: 'x' }),
      becomes: { 'proc/self/cwd/pwned': 'x' },
    },
    { ...of('a whiteout through a link', link('out', outside), { path: 'out/.wh.secret' }), becomes: {} },
    { ...of('an opaque mark through a link', link('out', outside), { path: 'out/.wh..wh..opq' }), becomes: {} },
    {
      ...of('a hard link to outside', hard('file', `${outside}/secret`)),
      becomes: /no such file or directory/,
    },
    {
      ...of('a hard link that climbs out', hard('file', `${up}${inside}/secret`)),
      becomes: /no such file or directory/,
    },
    {
      ...of('a hard link through a link', link('out', outside), hard('file', 'out/secret')),
      becomes: /no such file or directory/,
    },
    { ...of('a whiteout of ..', { path: 'a/' }, { path: 'a/.wh...' }), becomes: /invalid whiteout name/ },
    {
      ...of('a link to itself as a folder', link('loop', 'loop'), { path: 'loop/x' }),
      becomes: /too many levels of symbolic links/,
    },
    { ...of('a file as a folder', { path: 'file' }, { path: 'file/x' }), becomes: /not a directory/ },
    {
      ...of('marks of overlayfs as attributes', {
        path: 'dir/',
        xattrs: [['trusted.overlay.redirect', Buffer.from(outside)]],
      }),
      becomes: { dir: '' },
    },
    {
      ...of(
        'devices',
        { path: 'disk', type: '4', devMajor: 8, devMinor: 0 },
        { path: 'kmem', type: '3', devMajor: 1, devMinor: 2 },
        { path: 'fifo', type: '6' },
      ),
      becomes: { disk: '', kmem: '', fifo: '' },
    },
    // Sizes that lie.
    { name: 'a sparse terabyte as GNU has it', tar: gnuSparse, becomes: { sparse: 'xxx' } },
    { name: 'a sparse terabyte as PAX has it', tar: paxSparse, becomes: { sparse: 'xxx' } },
    {
      name: 'a terabyte that does not come',
      tar: Buffer.concat([rawHeader({ name: 'file', size: base256(BigInt(TERABYTE)) }), Buffer.alloc(4096, 'x')]),
      becomes: /unexpected EOF/,
    },
    {
      name: 'a size below zero',
      tar: Buffer.concat([rawHeader({ name: 'file', size: base256(-1n) }), end]),
      becomes: /invalid tar header/,
    },
    {
      name: 'a size beyond all bounds',
      tar: Buffer.concat([rawHeader({ name: 'file', size: base256(2n ** 62n) }), end]),
      becomes: /invalid tar header/,
    },
    { name: 'a PAX size below zero', tar: withPax(paxRecord('size', '-5')), becomes: /invalid tar header/ },
    {
      name: 'a PAX size beyond all bounds',
      tar: withPax(paxRecord('size', '99999999999999999999')),
      becomes: /invalid tar header/,
    },
    {
      name: 'a PAX header of two megabytes',
      tar: withPax(paxRecord('comment', 'x'.repeat(2 << 20))),
      becomes: /invalid tar header/,
    },
    {
      name: 'a PAX record that lies about its length',
      tar: withPax('999999 comment=x\n'),
      becomes: /invalid tar header/,
    },
    {
      name: 'a gzip bomb',
      tar: makeTar({ path: 'zeros', content: Buffer.alloc(64 << 20) }),
      becomes: /layer is larger than 16777216 bytes/,
    },
    {
      name: 'a zstd bomb',
      mediaType: layerTypes.zstd,
      tar: makeTar({ path: 'zeros', content: Buffer.alloc(64 << 20) }),
      becomes: /layer is larger than 16777216 bytes/,
    },
    // Names.
    {
      name: 'folders ten thousand deep',
      tar: makeTar({ path: `${deep}file`, content: 'x' }),
      becomes: { [`${'d/'.repeat(50)}d`]: '' },
    },
    {
      ...of(
        'the same name again and again',
        { path: 'a', content: '1' },
        { path: 'a/', type: '5' },
        { path: 'a', content: '2' },
      ),
      becomes: { a: '2' },
    },
    { ...of('names that are not UTF-8', { path: 'caf\xe9\xff', content: 'x' }), becomes: { 'caf\xe9\xff': 'x' } },
    {
      ...of('a name with a line break and a terminal’s control codes', { path: 'a\n\x1b[2Jb', content: 'x' }),
      becomes: { 'a\n\x1b[2Jb': 'x' },
    },
    { ...of('a name that is too long', { path: 'x'.repeat(300) }), becomes: /file name too long/ },
    // Broken ones.
    { name: 'gzip cut short', tar: good, blob: packed.subarray(0, -30), becomes: /unexpected EOF/ },
    { name: 'gzip with a wrong sum', tar: good, blob: changed, becomes: /gzip: invalid checksum/ },
    {
      name: 'gzip followed by something',
      tar: good,
      blob: Buffer.concat([packed, Buffer.from('more')]),
      becomes: /gzip: invalid header|unexpected EOF/,
    },
    {
      name: 'zstd cut short',
      tar: good,
      blob: zstdCompressSync(good).subarray(0, -8),
      mediaType: layerTypes.zstd,
      becomes: /unexpected EOF/,
    },
    { name: 'a tar cut short', tar: good.subarray(0, 100_000), becomes: /unexpected EOF/ },
    { name: 'a wrong header', tar: badHeader, becomes: /invalid tar header/ },
    { name: 'rubbish between entries', tar: mid, becomes: /invalid tar header/ },
    { name: 'no tar at all', tar: Buffer.alloc(5000, 'rubbish '), becomes: /invalid tar header/ },
    {
      name: 'gzip under the type of a plain tar',
      tar: good,
      blob: packed,
      mediaType: layerTypes.plain,
      becomes: /invalid tar header|unexpected EOF/,
    },
    { ...of('a type that nobody knows', { path: 'x', type: 'Q' }), becomes: /unhandled tar header type/ },
  ];
}

/** The blob of a layer, packed as its type says. */
export function blobOf({ blob, tar, mediaType = layerTypes.gzip }: HostileLayer): Buffer {
  if (blob) return blob;
  if (mediaType === layerTypes.zstd) return zstdCompressSync(tar);
  return mediaType === layerTypes.plain ? tar : gzipSync(tar);
}

export const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
