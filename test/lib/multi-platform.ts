import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type BuiltLayer, buildLayer, busyboxLayer, type LayerBuilder } from './images.ts';

/** An image of several platforms in an OCI layout: each shares the lowest layer and has one of its own. */

export interface PlatformImage {
  architecture: string;
  variant?: string;
  manifest: { digest: string; size: number };
  layers: BuiltLayer[];
}

export interface MultiPlatform {
  layout: string;
  index: { digest: string; size: number };
  images: PlatformImage[];
}

const types = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
};

/** Puts a document, or bytes, into a layout. */
export function addBlob(layout: string, content: unknown): { digest: string; size: number } {
  const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
  const hex = createHash('sha256').update(bytes).digest('hex');
  writeFileSync(path.join(layout, 'blobs/sha256', hex), bytes);
  return { digest: `sha256:${hex}`, size: bytes.length };
}

/** Makes the layout stand for one thing, under the tag `latest`. */
export function setRoot(layout: string, descriptor: object): void {
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  writeFileSync(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const manifests = [{ ...descriptor, annotations }];
  writeFileSync(path.join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
}

export async function buildMultiPlatform(
  layout: string,
  platforms: readonly { architecture: string; variant?: string }[],
): Promise<MultiPlatform> {
  const base = await buildLayer(layout, busyboxLayer);
  const images: PlatformImage[] = [];
  for (const { architecture, variant } of platforms) {
    const own: LayerBuilder = (directory) => {
      mkdirSync(path.join(directory, 'etc'));
      writeFileSync(path.join(directory, 'etc/platform'), `${architecture}${variant ?? ''}\n`);
    };
    const layers = [base, await buildLayer(layout, own)];
    const config = {
      architecture,
      os: 'linux',
      ...(variant && { variant }),
      config: { Cmd: ['sh'], Env: ['PATH=/bin'] },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    };
    const manifest = addBlob(layout, {
      schemaVersion: 2,
      mediaType: types.manifest,
      config: { mediaType: types.config, ...addBlob(layout, config) },
      layers: layers.map(({ descriptor }) => descriptor),
    });
    images.push({ architecture, ...(variant && { variant }), manifest, layers });
  }
  const manifests = images.map(({ manifest, architecture, variant }) => ({
    mediaType: types.manifest,
    ...manifest,
    platform: { os: 'linux', architecture, ...(variant && { variant }) },
  }));
  const index = addBlob(layout, { schemaVersion: 2, mediaType: types.index, manifests });
  setRoot(layout, { mediaType: types.index, ...index });
  return { layout, index, images };
}

/** Bytes of a blob of the layout. */
export function readBlob(layout: string, digest: string): Buffer {
  return readFileSync(path.join(layout, 'blobs', digest.replace(':', '/')));
}
