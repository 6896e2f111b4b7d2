import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildImage, busyboxLayer, type LayerBuilder } from './images.ts';
import type { TestRegistry } from './registry.ts';

/** The images that containerd's integration tests ask for, made of this machine's busybox. */

const shell = { Cmd: ['sh'], Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] };

function put(root: string, file: string, text: string, mode = 0o644): void {
  mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
  writeFileSync(path.join(root, file), text, { mode });
}

/** All of busybox's programs, and the users of its image. */
const base: LayerBuilder = (root) => {
  busyboxLayer(root);
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n');
  for (const applet of applets) {
    const file = path.join(root, 'bin', applet);
    if (!existsSync(file)) symlinkSync('busybox', file);
  }
  put(
    root,
    'etc/passwd',
    'root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n',
  );
  put(root, 'etc/group', 'root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nnogroup:x:65534:\n');
};

/** A file whose name is told by tests, of a volume or beside what is looked for. */
const marked =
  (file: string, mode = 0o644): LayerBuilder =>
  (root) =>
    put(root, file, `${file}\n`, mode);

/** A link out of what it lies in, as that image has it. */
const absoluteShell: LayerBuilder = (root) => {
  mkdirSync(path.join(root, 'bin'));
  symlinkSync('/bin/busybox', path.join(root, 'bin/sh'));
};

/** Holds the memory that it is told to take in megabytes, as `stress -m 1 --vm-bytes 100M --vm-hang 0 -t 30` does. */
const stress = '#!/bin/sh\ndd if=/dev/zero bs=110M count=1 | sleep 30\n';

/** Opens its output by name and says there what nginx says. */
const nginx = 'echo start worker processes > /proc/self/fd/2; exec sleep 1000000';

const volumes = {
  '/test_dir': 'test_file',
  '/:colon_prefixed': 'colon_prefixed_file',
  '/C:/weird_test_dir': 'weird_test_file',
};

interface Wanted {
  layers: LayerBuilder[];
  config: Parameters<typeof buildImage>[2];
}

const images: Record<string, Wanted> = {
  'containerd/busybox:1.36': { layers: [base], config: shell },
  'containerd/alpine:3.14.0': { layers: [base, marked('etc/os-release'), absoluteShell], config: shell },
  'containerd/nginx:1.27.0': { layers: [base, marked('etc/nginx')], config: { ...shell, Cmd: ['sh', '-c', nginx] } },
  'e2e-test-images/resource-consumer:1.10': {
    layers: [base, (root) => put(root, 'bin/stress', stress, 0o755)],
    config: { ...shell, Cmd: ['sleep', '1000000'] },
  },
  'pause:3.10.2': {
    layers: [base, marked('pause', 0o755)],
    config: { Entrypoint: ['/bin/sleep', '1000000'], User: '65535:65535' },
  },
  'containerd/volume-copy-up:2.2': {
    layers: [
      base,
      (root) => {
        for (const [directory, file] of Object.entries(volumes))
          put(root, path.join(directory, file), 'test_content\n');
      },
    ],
    config: { ...shell, Volumes: Object.fromEntries(Object.keys(volumes).map((directory) => [directory, {}])) },
  },
  'containerd/volume-ownership:2.1': {
    layers: [
      base,
      (root) => {
        put(root, 'test_dir/test_file', 'test_content\n');
        for (const file of ['test_dir', 'test_dir/test_file']) {
          chownSync(path.join(root, file), 65534, 65534);
        }
      },
    ],
    config: { ...shell, Volumes: { '/test_dir': {} } },
  },
};

/** Makes them all and pushes them. */
export async function fillIntegrationImages(folder: string, registry: TestRegistry): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (const [name, { layers, config }] of Object.entries(images)) {
    const layout = path.join(folder, name.replaceAll(/\W/g, '-'));
    await buildImage(layout, layers, config);
    await registry.fill(layout, name);
  }
}
