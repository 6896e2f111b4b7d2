import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { buildImage, type LayerBuilder } from '../test/lib/images.ts';
import type { Peer } from './peers.ts';

const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch };

/** Pull and unpack through the transfer service, as `ctr image pull` does. Milliseconds. */
export async function pull(peer: Peer, reference: string): Promise<number> {
  const startedAt = performance.now();
  await peer.transfer.transfer({
    source: packAny(OCIRegistrySchema, { reference, resolver: { defaultScheme: 'http' } }),
    destination: packAny(ImageStoreSchema, {
      name: reference,
      platforms: [platform],
      unpacks: [{ platform, snapshotter: 'overlayfs' }],
    }),
  });
  return performance.now() - startedAt;
}

/** Removes an image and all that only it used. */
export async function forget(peer: Peer, reference: string): Promise<void> {
  await peer.images.delete({ name: reference, sync: true });
}

/** The top snapshot of the only image present: the one that is nobody's parent. */
export async function topSnapshot(peer: Peer): Promise<string> {
  const names = new Set<string>();
  const parents = new Set<string>();
  for await (const { info } of peer.snapshots.list({ snapshotter: 'overlayfs' })) {
    for (const snapshot of info) {
      names.add(snapshot.name);
      parents.add(snapshot.parent);
    }
  }
  const top = [...names].find((name) => name.startsWith('sha256:') && !parents.has(name));
  if (top === undefined) throw new Error(`${peer.name} has no snapshots`);
  return top;
}

/** About 42,000 small files in four layers. */
export function manyFiles(layout: string): Promise<void> {
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
export function largeImage(layout: string, megabytes: number): Promise<void> {
  const layer =
    (which: number): LayerBuilder =>
    (directory) => {
      const noise = randomBytes(512 << 10);
      const block = Buffer.concat([noise, Buffer.alloc(512 << 10, `layer ${which} `)]);
      const perLayer = Math.round(megabytes / 4);
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
