import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { run } from './processes.ts';

/** The images that tests run, built from nothing but busybox and GNU tar into an OCI layout each. */

export interface ImageConfigInput {
  Cmd?: string[];
  Entrypoint?: string[];
  Env?: string[];
  User?: string;
  WorkingDir?: string;
  StopSignal?: string;
  Volumes?: Record<string, object>;
}

/** Fills a directory that becomes one layer. A file `.wh.x` is a whiteout. */
export type LayerBuilder = (directory: string) => void;

function blob(layout: string, bytes: Buffer): { digest: string; size: number } {
  const hex = createHash('sha256').update(bytes).digest('hex');
  writeFileSync(path.join(layout, 'blobs/sha256', hex), bytes);
  return { digest: `sha256:${hex}`, size: bytes.length };
}

/** One layer in a layout: its descriptor and the digest of what is in it. */
export interface BuiltLayer {
  descriptor: { mediaType: string; digest: string; size: number };
  diffId: string;
}

/** Packs what `build` leaves in a directory, by GNU tar and gzip -6. Times are fixed, so that the same content has the same digest. */
export async function buildLayer(layout: string, build: LayerBuilder): Promise<BuiltLayer> {
  mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
  const directory = `${layout}.layer`;
  mkdirSync(directory);
  build(directory);
  const file = `${layout}.tar`;
  await run('tar', [
    '--sort=name',
    '--mtime=@1700000000',
    '--numeric-owner',
    '--xattrs',
    // Times of access and change would make every build another layer.
    '--pax-option=delete=atime,delete=ctime',
    '-C',
    directory,
    '-cf',
    file,
    '.',
  ]);
  const tar = readFileSync(file);
  const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  const descriptor = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    ...blob(layout, gzipSync(tar, { level: 6 })),
  };
  rmSync(directory, { recursive: true });
  rmSync(file);
  return { descriptor, diffId };
}

/** Adds an image of layers that are in the layout, under a tag. */
export function writeImage(
  layout: string,
  layers: readonly BuiltLayer[],
  config: ImageConfigInput,
  tag = 'latest',
): void {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const diffIds = layers.map(({ diffId }) => diffId);
  const configBlob = blob(
    layout,
    Buffer.from(JSON.stringify({ architecture, os: 'linux', config, rootfs: { type: 'layers', diff_ids: diffIds } })),
  );
  const manifest = blob(
    layout,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...configBlob },
        layers: layers.map(({ descriptor }) => descriptor),
      }),
    ),
  );
  writeFileSync(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const index = path.join(layout, 'index.json');
  const before = existsSync(index)
    ? (JSON.parse(readFileSync(index, 'utf8')) as { manifests: object[] }).manifests
    : [];
  const entry = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    ...manifest,
    annotations: { 'org.opencontainers.image.ref.name': tag },
    platform: { architecture, os: 'linux' },
  };
  writeFileSync(index, JSON.stringify({ schemaVersion: 2, manifests: [...before, entry] }));
}

/** Builds an OCI layout with one image under the tag `latest`. */
export async function buildImage(
  layout: string,
  layers: readonly LayerBuilder[],
  config: ImageConfigInput,
): Promise<void> {
  const built: BuiltLayer[] = [];
  for (const build of layers) built.push(await buildLayer(layout, build));
  writeImage(layout, built, config);
}

const applets =
  'sh tty ls cat echo sleep true false id env ps kill mount hostname stty dd yes head seq wc touch rm mkdir sync tail'.split(
    ' ',
  );

/** The base layer: a static busybox with its applets, users, and the folders that runtimes mount on. */
export function busyboxLayer(directory: string): void {
  for (const folder of ['bin', 'etc', 'dev', 'proc', 'sys', 'tmp', 'root', 'run', 'var'])
    mkdirSync(path.join(directory, folder));
  chmodSync(path.join(directory, 'tmp'), 0o1777);
  copyFileSync('/bin/busybox', path.join(directory, 'bin/busybox'));
  for (const applet of applets) symlinkSync('busybox', path.join(directory, 'bin', applet));
  writeFileSync(
    path.join(directory, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var:/bin/false\n',
  );
  writeFileSync(path.join(directory, 'etc/group'), 'root:x:0:\nwww-data:x:33:\nextra:x:44:www-data\n');
}

/** Files to be removed, replaced and linked by the layers above. */
function filesLayer(directory: string): void {
  mkdirSync(path.join(directory, 'data/opaque'), { recursive: true });
  writeFileSync(path.join(directory, 'data/gone'), 'to be removed');
  writeFileSync(path.join(directory, 'data/opaque/hidden'), 'to be hidden');
  writeFileSync(path.join(directory, 'data/a'), 'linked');
  linkSync(path.join(directory, 'data/a'), path.join(directory, 'data/b'));
  writeFileSync(path.join(directory, 'data/setuid'), 'x');
  chmodSync(path.join(directory, 'data/setuid'), 0o4755);
}

function whiteoutLayer(directory: string): void {
  mkdirSync(path.join(directory, 'data/opaque'), { recursive: true });
  writeFileSync(path.join(directory, 'data/.wh.gone'), '');
  writeFileSync(path.join(directory, 'data/opaque/.wh..wh..opq'), '');
  writeFileSync(path.join(directory, 'data/opaque/shown'), 'shown');
}

/** Builds `busybox`, `whiteouts` and, unless `few`, `many-layers` under a folder; answers their layouts by name. */
export async function buildTestImages(
  folder: string,
  { few = false } = {},
): Promise<Record<'busybox' | 'whiteouts' | 'many-layers', string>> {
  const layouts = {
    busybox: path.join(folder, 'busybox'),
    whiteouts: path.join(folder, 'whiteouts'),
    'many-layers': path.join(folder, 'many-layers'),
  };
  const config = { Cmd: ['sh'], Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] };
  await buildImage(layouts.busybox, [busyboxLayer], config);
  await buildImage(layouts.whiteouts, [busyboxLayer, filesLayer, whiteoutLayer], config);
  if (few) return layouts;
  const many: LayerBuilder[] = [busyboxLayer];
  for (let number = 1; number <= 110; number++) {
    many.push((directory) => {
      mkdirSync(path.join(directory, 'layers'));
      writeFileSync(path.join(directory, 'layers', String(number)), `layer ${number}\n`);
    });
  }
  await buildImage(layouts['many-layers'], many, config);
  return layouts;
}

/** busybox alone under a name, as `busybox.tar` in a directory, for `ctr images import`; answers the file. */
export async function busyboxArchive(directory: string, name: string): Promise<string> {
  const { busybox } = await buildTestImages(path.join(directory, 'images'), { few: true });
  const archive = path.join(directory, 'busybox.tar');
  await run('skopeo', ['copy', '-q', '--insecure-policy', `oci:${busybox}:latest`, `oci-archive:${archive}:${name}`]);
  return archive;
}
