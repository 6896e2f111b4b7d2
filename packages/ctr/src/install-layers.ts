// Unpacks programs and libraries out of an image's layers.
import { createWriteStream, existsSync, mkdirSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { tarReader } from '@gantry/archive';
import type { Client, Descriptor } from '@gantry/client';
import { isLayerType, layerCompression } from '@gantry/oci';

export interface InstallSettings {
  /** Gets bin/ and lib/. */
  directory: string;
  libraries: boolean;
  /** Replace files that are there; without it one that is there is an error. */
  replace: boolean;
}

/** The place of an entry below the directory: bin/x or lib/x; undefined for all else. */
export function installPath(name: string, libraries: boolean): string | undefined {
  const clean = path.posix.normalize(`/${name}`).slice(1);
  const [top, ...rest] = clean.split('/');
  if (rest.length === 0 || (top !== 'bin' && !(libraries && top === 'lib'))) return undefined;
  // Names like these are marks of layers, no files.
  return rest.some((part) => part.startsWith('.wh.')) ? undefined : clean;
}

/** @throws Error for a file that is there already and for an entry that would leave the directory */
export async function installLayers(
  client: Client,
  layers: readonly Descriptor[],
  settings: InstallSettings,
): Promise<void> {
  mkdirSync(settings.directory, { recursive: true });
  const root = realpathSync(settings.directory);
  for (const layer of layers) {
    if (!isLayerType(layer.mediaType)) continue;
    const bytes = client.content.stream(layer.digest);
    const compression = layerCompression(layer.mediaType);
    const inflate =
      compression === 'zstd' ? createZstdDecompress() : compression === 'none' ? undefined : createGunzip();
    // An error of the download ends the decompression, and so the reader.
    if (inflate) pipeline(bytes, inflate).catch((error) => inflate.destroy(error));
    for await (const entry of tarReader(inflate ?? bytes)) {
      const inside = installPath(entry.name, settings.libraries);
      if (inside === undefined || !['0', '\0', '', '2'].includes(entry.type)) continue;
      const file = path.join(root, inside);
      mkdirSync(path.dirname(file), { recursive: true });
      if (realpathSync(path.dirname(file)) !== path.dirname(file))
        throw new Error(`${inside} leads out of ${root} by a link`);
      if (existsSync(file) && !settings.replace)
        throw new Error(`cannot replace ${inside} in ${root}: it is there already, and --replace is not given`);
      rmSync(file, { force: true });
      if (entry.type === '2') symlinkSync(entry.linkname, file);
      else
        await pipeline(
          Readable.from(entry.stream),
          createWriteStream(file, { mode: entry.header.mode & 0o755, flags: 'wx' }),
        );
    }
  }
}
