// Makes the image that `npm start` runs: an OCI archive with one program of a few hundred bytes, written here byte by byte,
// for x86-64 and arm64. It needs no library, no shell and no network.
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

/** The image's name, and what its container prints. */
export const helloName = 'gantry.local/hello:1';
export const helloText = 'Hello from a Gantry container.\n';

const base = 0x400000;
const headers = 64 + 56;

/** A static executable of one loadable segment: the ELF and program headers, then code, then the text it prints. */
function elf(machine, code, text) {
  const size = headers + code.length + text.length;
  const file = Buffer.alloc(size);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bits, little-endian, version 1
  file.writeUInt16LE(2, 16); // an executable at a fixed address
  file.writeUInt16LE(machine, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(base + headers), 24); // where it starts
  file.writeBigUInt64LE(64n, 32); // the program header follows
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt16LE(64, 58);
  file.writeUInt32LE(1, 64); // load
  file.writeUInt32LE(5, 68); // readable, executable
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(base), 88);
  file.writeBigUInt64LE(BigInt(size), 96);
  file.writeBigUInt64LE(BigInt(size), 104);
  file.writeBigUInt64LE(0x10000n, 112);
  file.set(code, headers);
  file.set(text, headers + code.length);
  return file;
}

/** write(1, text, length); exit(0) */
function amd64(text) {
  const code = Buffer.from([
    ...[0xb8, 1, 0, 0, 0], // mov eax, 1
    ...[0xbf, 1, 0, 0, 0], // mov edi, 1
    ...[0x48, 0x8d, 0x35, 0, 0, 0, 0], // lea rsi, [rip + text]
    ...[0xba, 0, 0, 0, 0], // mov edx, length
    ...[0x0f, 0x05], // syscall
    ...[0xb8, 60, 0, 0, 0], // mov eax, 60
    ...[0x31, 0xff], // xor edi, edi
    ...[0x0f, 0x05], // syscall
  ]);
  code.writeInt32LE(code.length - 17, 13);
  code.writeInt32LE(text.length, 18);
  return elf(62, code, text);
}

function arm64(text) {
  const length = 8 * 4;
  const distance = length - 4; // from the adr, the second instruction, to the text behind the code
  const words = [
    0xd2800020, // mov x0, 1
    (0x10000001 | ((distance & 3) << 29) | ((distance >> 2) << 5)) >>> 0, // adr x1, text
    (0xd2800002 | (text.length << 5)) >>> 0, // mov x2, length
    0xd2800808, // mov x8, 64 (write)
    0xd4000001, // svc 0
    0xd2800000, // mov x0, 0
    0xd2800ba8, // mov x8, 93 (exit)
    0xd4000001, // svc 0
  ];
  const code = Buffer.alloc(length);
  for (const [index, word] of words.entries()) code.writeUInt32LE(word, index * 4);
  return elf(183, code, text);
}

/** The program for one of Node's names of architectures. */
export function helloProgram(arch) {
  const text = Buffer.from(helloText);
  return arch === 'arm64' ? arm64(text) : amd64(text);
}

/** A ustar archive of files and folders with names under 100 bytes. */
function tar(entries) {
  const blocks = [];
  for (const { name, data = Buffer.alloc(0), mode, type = '0' } of entries) {
    const header = Buffer.alloc(512);
    const octal = (value, at, width) => header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at);
    header.write(name, 0);
    octal(mode, 100, 8);
    octal(0, 108, 8);
    octal(0, 116, 8);
    octal(data.length, 124, 12);
    octal(0, 136, 12);
    header.write('        ', 148);
    header.write(type, 156);
    header.write('ustar\x0000', 257);
    octal(
      header.reduce((sum, byte) => sum + byte, 0),
      148,
      7,
    );
    blocks.push(header, data, Buffer.alloc((512 - (data.length % 512)) % 512));
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

const digestOf = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** The image as an OCI archive, ready for `ctr image import`. The same bytes at every call. */
export function helloArchive() {
  const blobs = new Map();
  const add = (mediaType, bytes, more = {}) => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length, ...more };
  };
  const addJson = (mediaType, value, more) => add(mediaType, Buffer.from(JSON.stringify(value)), more);
  const manifests = [
    ['amd64', helloProgram('x64')],
    ['arm64', helloProgram('arm64')],
  ].map(([architecture, program]) => {
    const layer = tar([{ name: 'hello', data: program, mode: 0o755 }]);
    const platform = { architecture, os: 'linux' };
    const config = addJson('application/vnd.oci.image.config.v1+json', {
      created: '1970-01-01T00:00:00Z',
      ...platform,
      config: { Entrypoint: ['/hello'], WorkingDir: '/' },
      rootfs: { type: 'layers', diff_ids: [digestOf(layer)] },
      history: [{ created: '1970-01-01T00:00:00Z', created_by: 'scripts/hello-image.mjs' }],
    });
    const manifest = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: [add('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(layer))],
    };
    return addJson(manifest.mediaType, manifest, { platform });
  });
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
  const top = addJson(index.mediaType, index, {
    annotations: { 'io.containerd.image.name': helloName, 'org.opencontainers.image.ref.name': helloName },
  });
  return tar([
    { name: 'oci-layout', data: Buffer.from('{"imageLayoutVersion":"1.0.0"}'), mode: 0o644 },
    { name: 'index.json', data: Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [top] })), mode: 0o644 },
    { name: 'blobs/', mode: 0o755, type: '5' },
    { name: 'blobs/sha256/', mode: 0o755, type: '5' },
    ...[...blobs].map(([digest, data]) => ({ name: `blobs/${digest.replace(':', '/')}`, data, mode: 0o644 })),
  ]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = process.argv[2];
  if (!file) {
    console.error(`usage: node ${path.relative('.', process.argv[1])} FILE.tar`);
    process.exit(2);
  }
  writeFileSync(file, helloArchive());
}
