import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildImage, busyboxLayer, type ImageConfigInput, type LayerBuilder } from './images.ts';
import { run } from './processes.ts';
import type { TestRegistry } from './registry.ts';

/** What pods are given of the host, and the images they are made of: ordinary, odd and hostile. */

/** Makes directories, links, devices, mounts and profiles; answers how to take the mounts away. */
export async function makeHost(host: string): Promise<() => Promise<void>> {
  for (const name of ['dir', 'other', 'empty', 'devices/sub', 'private', 'shared'])
    mkdirSync(path.join(host, name), { recursive: true });
  const write = (name: string, text: string): void => writeFileSync(path.join(host, name), text);
  write('dir/one', 'one');
  write('other/two', 'two');
  write('file', 'a file\n');
  write('bad.json', '{ no JSON');
  write('wrong.json', '{"defaultAction": 5, "syscalls": "x"}');
  // As text: JavaScript has no such number.
  const args = '[{"index": 0, "value": 18446744073709551615, "op": "SCMP_CMP_EQ"}]';
  write(
    'seccomp.json',
    `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": ${args}}]}`,
  );
  symlinkSync('dir', path.join(host, 'link'));
  symlinkSync('nowhere', path.join(host, 'dangling'));
  symlinkSync('loop', path.join(host, 'loop'));
  symlinkSync('/dev/zero', path.join(host, 'device-link'));
  await run('mknod', ['-m', '640', path.join(host, 'devices/a'), 'c', '1', '3']);
  await run('mknod', ['-m', '600', path.join(host, 'devices/sub/b'), 'c', '1', '5']);
  const points = ['private', 'shared'].map((kind) => [kind, path.join(host, kind)] as const);
  for (const [kind, point] of points) {
    await run('mount', ['-t', 'tmpfs', 'twins', point]);
    await run('mount', [`--make-${kind}`, point]);
  }
  return async () => {
    for (const [, point] of points) await run('umount', ['-l', point], { mayFail: true });
  };
}

/** Two devices of `vendor.test/class`. */
export function writeCdi(directory: string, host: string): void {
  mkdirSync(directory);
  const one = {
    env: ['CDI=one'],
    deviceNodes: [{ path: '/dev/cdi', hostPath: '/dev/null', permissions: 'rw' }],
    mounts: [{ hostPath: `${host}/file`, containerPath: '/cdi-file', options: ['ro', 'bind'] }],
    hooks: [{ hookName: 'prestart', path: '/bin/true', args: ['true'] }],
  };
  const document = {
    cdiVersion: '0.7.0',
    kind: 'vendor.test/class',
    devices: [
      { name: 'one', containerEdits: one },
      { name: 'two', containerEdits: { env: ['CDI2=two'], additionalGids: [77] } },
    ],
    containerEdits: { env: ['EVERY=1'] },
  };
  writeFileSync(path.join(directory, 'vendor.json'), JSON.stringify(document));
}

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const shell = { Cmd: ['sh'], Env: [PATH] };

const data: LayerBuilder = (directory) => {
  mkdirSync(path.join(directory, 'data'), { mode: 0o751 });
  writeFileSync(path.join(directory, 'data/kept'), 'from the image\n', { mode: 0o600 });
  symlinkSync('../../../..', path.join(directory, 'away'));
};

/** @param host where its links lead: nothing may be found or made there */
const hostile =
  (host: string): LayerBuilder =>
  (directory) => {
    symlinkSync('../../../../../../../../tmp', path.join(directory, 'vol'));
    symlinkSync(`${host}/empty`, path.join(directory, 'host'));
  };

function images(host: string): Record<string, [LayerBuilder[], ImageConfigInput]> {
  return {
    busybox: [[], shell],
    pause: [[], { Entrypoint: ['/bin/sleep', '1000000'], User: '65535:65535', Env: [PATH] }],
    volumes: [[data], { ...shell, Volumes: { '/data': {}, 'new/vol': {} } }],
    user: [[], { ...shell, User: 'www-data', WorkingDir: '/var/some/where' }],
    'user-group': [[], { ...shell, User: '1000:extra', StopSignal: 'SIGUSR1' }],
    'no-user': [[], { ...shell, User: 'nobody' }],
    cmd: [[], { Cmd: ['sh', '-c', 'x'], Env: [PATH, 'A=1', 'B=2=3', 'HOSTNAME=of-the-image', 'NOTHING'] }],
    entrypoint: [[], { Entrypoint: ['sh', '-c'], Env: ['PATH=/bin', 'PATH=/sbin:/bin', 'TERM=vt100'] }],
    both: [[], { Entrypoint: ['sh', '-c'], Cmd: ['sleep 1'], Env: ['X=y'] }],
    nothing: [[], {}],
    hostile: [[hostile(host)], { ...shell, Volumes: { '/vol/x': {}, '/host/vol': {}, '/../../esc': {} } }],
    odd: [
      [],
      {
        Cmd: ['sh'],
        Env: ['', '=x', 'PATH'],
        WorkingDir: 'rel/dir',
        User: '33:0',
        StopSignal: 'nonsense',
        Volumes: { '/etc/hosts': {}, '/proc/v': {} },
      },
    ],
  };
}

/** Puts them all into a registry; answers the names that nodes pull them by. */
export async function fillTwinImages(directory: string, host: string, registry: TestRegistry): Promise<string[]> {
  const layouts = path.join(directory, 'layouts');
  mkdirSync(layouts);
  const names: string[] = [];
  for (const [name, [layers, config]] of Object.entries(images(host))) {
    const layout = path.join(layouts, name);
    await buildImage(layout, [busyboxLayer, ...layers], config);
    const stored = name === 'pause' ? 'pause:3.10.2' : `library/${name}:1`;
    await registry.fill(layout, stored);
    names.push(name === 'pause' ? `registry.k8s.io/${stored}` : `docker.io/${stored}`);
  }
  return names;
}
