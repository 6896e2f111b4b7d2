import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildImage, busyboxLayer, type LayerBuilder } from '../lib/images.ts';
import { run } from '../lib/processes.ts';

/** Images whose every byte is known, so that after a crash their blobs and their unpacked files can be compared. */
export interface KnownImage {
  layout: string;
  /** Manifest, configuration and layers. */
  digests: string[];
  /** Of its chain of layers, bottom first. */
  chainIds: string[];
  /** Regular files of all layers by path; no two layers have one in common. */
  files: ReadonlyMap<string, string>;
  /** The same for each layer, bottom first. */
  layers: readonly ReadonlyMap<string, string>[];
}

const sha256 = (bytes: string | Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Hashes of all regular files beneath a directory, by path. */
export function hashTree(directory: string, into = new Map<string, string>()): Map<string, string> {
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    into.set(path.relative(directory, file), sha256(readFileSync(file)));
  }
  return into;
}

function dataLayer(name: string, files: number, bytes: number): LayerBuilder {
  const contents = Array.from({ length: files }, () => randomBytes(bytes));
  return (directory) => {
    for (const [number, content] of contents.entries()) {
      const folder = path.join(directory, 'data', name, String(number % 7));
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, `file-${number}`), content);
    }
  };
}

async function build(layout: string, layers: readonly LayerBuilder[]): Promise<KnownImage> {
  const found: Map<string, string>[] = [];
  const recorded = layers.map(
    (layer): LayerBuilder =>
      (directory) => {
        layer(directory);
        found.push(hashTree(directory));
      },
  );
  await buildImage(layout, recorded, { Cmd: ['sh'], Env: ['PATH=/bin'] });
  const readBlob = (digest: string) =>
    JSON.parse(readFileSync(path.join(layout, 'blobs/sha256', digest.slice('sha256:'.length)), 'utf8'));
  const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8'));
  const manifestDigest: string = index.manifests[0].digest;
  const manifest = readBlob(manifestDigest);
  const diffIds: string[] = readBlob(manifest.config.digest).rootfs.diff_ids;
  const chainIds: string[] = [];
  for (const diffId of diffIds) {
    const below = chainIds.at(-1);
    chainIds.push(below === undefined ? diffId : sha256(`${below} ${diffId}`));
  }
  const layerDigests: string[] = manifest.layers.map(({ digest }: { digest: string }) => digest);
  const digests = [manifestDigest, manifest.config.digest, ...layerDigests];
  return { layout, digests, chainIds, files: new Map(found.flatMap((files) => [...files])), layers: found };
}

/** One more like those below, to be imported: the name stands in its index. */
export async function buildArchivedImage(folder: string, name: string): Promise<KnownImage & { archive: string }> {
  const layout = path.join(folder, 'archived');
  const image = await build(layout, [busyboxLayer, dataLayer('archived', 120, 5_000)]);
  const index = path.join(layout, 'index.json');
  const document = JSON.parse(readFileSync(index, 'utf8'));
  document.manifests[0].annotations = { 'io.containerd.image.name': name };
  writeFileSync(index, JSON.stringify(document));
  const archive = `${layout}.tar`;
  await run('tar', ['-C', layout, '-cf', archive, 'oci-layout', 'index.json', 'blobs']);
  return { ...image, archive };
}

/** `base` with busybox, and three more on it that share a layer and have two or three of their own. */
export async function buildKnownImages(folder: string): Promise<Map<string, KnownImage>> {
  const images = new Map<string, KnownImage>();
  images.set('base', await build(path.join(folder, 'base'), [busyboxLayer]));
  const shared = dataLayer('shared', 40, 20_000);
  for (const name of ['one', 'two', 'three']) {
    const own = [dataLayer(`${name}-small`, 150, 3_000), dataLayer(`${name}-large`, 2, 1_500_000)];
    if (name === 'three') own.push(dataLayer(`${name}-more`, 30, 10_000));
    images.set(name, await build(path.join(folder, name), [busyboxLayer, shared, ...own]));
  }
  return images;
}
