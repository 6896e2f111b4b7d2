// The program mkfs.erofs, for what only it can do: compressed images.
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { decompressed } from '@gantry/client';

export interface MkfsSettings {
  /** Becomes the image. */
  file: string;
  uuid: string;
  compressors: string;
  mkfsOptions: readonly string[];
  signal: AbortSignal;
}

/** Makes an image of a layer's tar. @returns the layer's diff id. @throws Error if the program is not there or too old */
export async function makeByMkfs(bytes: AsyncIterable<Uint8Array>, settings: MkfsSettings): Promise<string> {
  await checkProgram();
  const { file, uuid, compressors, mkfsOptions, signal } = settings;
  const given = [...(compressors ? [`-z${compressors}`, '-C', '65536'] : []), ...mkfsOptions];
  const block = given.some((option) => option.startsWith('-b')) ? [] : ['-b4096'];
  const args = ['--tar=f', '--aufs', '--quiet', '-Enoinline_data', ...block, ...given, '-U', uuid, file];
  const child = spawn('mkfs.erofs', args, { stdio: ['pipe', 'pipe', 'pipe'], signal });
  let told = '';
  for (const output of [child.stdout, child.stderr])
    output.setEncoding('utf8').on('data', (text: string) => {
      told = (told + text).slice(-4000);
    });
  const ended = once(child, 'close') as Promise<[number | null]>;
  const hash = createHash('sha256');
  const plain = await decompressed(bytes);
  const hashed = (async function* () {
    for await (const piece of plain) {
      hash.update(piece);
      yield piece;
    }
  })();
  const [fed, [code]] = await Promise.all([
    pipeline(Readable.from(hashed, { objectMode: false }), child.stdin).catch((reason: Error) => reason),
    ended,
  ]);
  if (code !== 0) throw new Error(`mkfs.erofs ${args.join(' ')} failed with ${code}: ${told.trim()}`);
  if (fed) throw fed;
  return `sha256:${hash.digest('hex')}`;
}

async function checkProgram(): Promise<void> {
  try {
    const { stdout, stderr } = await promisify(execFile)('mkfs.erofs', ['--help']);
    if (`${stdout}${stderr}`.includes('--tar=')) return;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT')
      throw new Error('--erofs-compressors and --erofs-mkfs-options need mkfs.erofs (erofs-utils), which is not there');
    const { stdout = '', stderr = '' } = reason as { stdout?: string; stderr?: string };
    if (`${stdout}${stderr}`.includes('--tar=')) return;
  }
  throw new Error('--erofs-compressors and --erofs-mkfs-options need mkfs.erofs 1.8 or later, with --tar');
}
