import { createHash, randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { type BuiltLayer, buildImage, buildLayer, type LayerBuilder, writeImage } from '../test/lib/images.ts';

/**
 * The images that pulls are measured with. Two kinds of large data: made up (half noise, half one repeated line, which stresses
 * copying more than inflating) and real (files of 32 KiB to 64 MiB of this machine's /usr, in an order that is random but always
 * the same: programs, libraries, archives, documents). All layers are GNU tar packed by zlib at level 6.
 */
export interface ImageSizes {
  /** Megabytes of each of the two large images, uncompressed. */
  large: number;
  /** Megabytes of the layers that ten images share, uncompressed. */
  shared: number;
}

/** Images that share layers are tags `0` to `9` of one layout. */
export const sharingImages = 10;

const layerCount = 4;

/** Builds what is not there yet; answers the layouts by name. */
export async function buildBenchImages(folder: string, sizes: ImageSizes): Promise<Record<ImageName, string>> {
  const files = new RealFiles();
  const made = (name: string, build: (layout: string) => Promise<void>) => once(path.join(folder, name), build);
  return {
    many: await made('many', manyFiles),
    large: await made(`large-${sizes.large}`, (layout) => largeImage(layout, sizes.large)),
    real: await made(`real-${sizes.large}`, (layout) => realImage(layout, sizes.large, files)),
    small: await made('small', smallLayers),
    sharing: await made(`sharing-${sizes.shared}`, (layout) => sharingLayers(layout, sizes.shared, files)),
  };
}

export type ImageName = 'many' | 'large' | 'real' | 'small' | 'sharing';

async function once(layout: string, build: (layout: string) => Promise<void>): Promise<string> {
  if (existsSync(layout)) return layout;
  const half = `${layout}.half`;
  for (const left of [half, `${half}.layer`, `${half}.tar`]) rmSync(left, { recursive: true, force: true });
  await build(half);
  renameSync(half, layout);
  return layout;
}

/** About 42,000 small files in four layers. */
function manyFiles(layout: string): Promise<void> {
  const layer =
    (which: number): LayerBuilder =>
    (directory) => {
      for (let folder = 0; folder < 105; folder++) {
        const parent = path.join(directory, `usr/share/l${which}/d${folder}`);
        mkdirSync(parent, { recursive: true });
        for (let file = 0; file < 100; file++) {
          writeFileSync(
            path.join(parent, `file-${file}.txt`),
            `layer ${which} folder ${folder} file ${file}\n`.repeat(1 + (file % 60)),
          );
        }
      }
    };
  return buildImage(layout, [0, 1, 2, 3].map(layer), {});
}

/** `megabytes` of half-compressible data in four layers. */
function largeImage(layout: string, megabytes: number): Promise<void> {
  const layer =
    (which: number): LayerBuilder =>
    (directory) => {
      const noise = randomBytes(512 << 10);
      const block = Buffer.concat([noise, Buffer.alloc(512 << 10, `layer ${which} `)]);
      const perLayer = Math.round(megabytes / layerCount);
      for (let file = 0; file < 8; file++) {
        const bytes = Buffer.alloc(Math.round((perLayer / 8) * (1 << 20)));
        for (let at = 0; at < bytes.length; at += block.length) {
          block.writeUInt32LE(at >>> 0, at % 4096);
          block.copy(bytes, at);
        }
        mkdirSync(path.join(directory, 'opt'), { recursive: true });
        writeFileSync(path.join(directory, `opt/blob-${which}-${file}`), bytes);
      }
    };
  return buildImage(layout, [0, 1, 2, 3].map(layer), {});
}

/** `megabytes` of this machine's own files in four layers. */
function realImage(layout: string, megabytes: number, files: RealFiles): Promise<void> {
  const layer = (): LayerBuilder => (directory) => files.copy(directory, (megabytes / layerCount) * 1e6);
  return buildImage(layout, Array.from({ length: layerCount }, layer), {});
}

/** 61 layers of twenty small files. */
function smallLayers(layout: string): Promise<void> {
  const layer =
    (_: unknown, which: number): LayerBuilder =>
    (directory) => {
      const parent = path.join(directory, `opt/layer-${which}`);
      mkdirSync(parent, { recursive: true });
      for (let file = 0; file < 20; file++) {
        writeFileSync(path.join(parent, `file-${file}`), `layer ${which} file ${file}\n`.repeat(100 + file));
      }
    };
  return buildImage(layout, Array.from({ length: 61 }, layer), {});
}

/** Ten images of four shared layers and one small of their own each. */
async function sharingLayers(layout: string, megabytes: number, files: RealFiles): Promise<void> {
  const shared: BuiltLayer[] = [];
  for (let which = 0; which < layerCount; which++) {
    shared.push(await buildLayer(layout, (directory) => files.copy(directory, (megabytes / layerCount) * 1e6)));
  }
  for (let image = 0; image < sharingImages; image++) {
    const own = await buildLayer(layout, (directory) => {
      for (let file = 0; file < 50; file++) {
        writeFileSync(path.join(directory, `own-${file}`), `image ${image} file ${file}\n`.repeat(200));
      }
    });
    writeImage(layout, [...shared, own], { Env: [`IMAGE=${image}`] }, String(image));
  }
}

/** Files of this machine, each given out once. */
class RealFiles {
  #list: { file: string; size: number }[] | undefined;

  /** Copies files of `bytes` in all into a directory, under their own paths. */
  copy(directory: string, bytes: number): void {
    this.#list ??= realFiles('/usr');
    for (let copied = 0; copied < bytes; ) {
      const next = this.#list.pop();
      if (!next) throw new Error('this machine has not enough files in /usr for the large image');
      const target = path.join(directory, next.file);
      mkdirSync(path.dirname(target), { recursive: true });
      copyFileSync(next.file, target);
      copied += next.size;
    }
  }
}

function realFiles(root: string): { file: string; size: number }[] {
  const found: { file: string; size: number; order: string }[] = [];
  const todo = [root];
  for (let folder = todo.pop(); folder !== undefined; folder = todo.pop()) {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const file = path.join(folder, entry.name);
      if (entry.isDirectory()) todo.push(file);
      if (!entry.isFile()) continue;
      const { size } = lstatSync(file);
      if (size < 32 << 10 || size > 64 << 20) continue;
      found.push({ file, size, order: createHash('sha256').update(file).digest('hex') });
    }
  }
  return found.sort((a, b) => (a.order < b.order ? -1 : 1));
}
