import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { type BuiltLayer, buildLayer, type ImageConfigInput, type LayerBuilder, writeImage } from './images.ts';
import type { TestRegistry } from './registry.ts';

/** The images that critest 1.36 asks for, made of this machine's programs: busybox, nginx, ipcs, pgrep, and what gcc compiles. */

const users = [
  ['root', 0, 0, '/root'],
  ['daemon', 1, 1, '/'],
  ['games', 5, 60, '/'],
  ['www-data', 33, 33, '/var/www'],
  ['nobody', 65534, 65534, '/'],
] as const;
const passwd = users.map(([name, uid, gid, home]) => `${name}:x:${uid}:${gid}::${home}:/bin/sh\n`).join('');
const group = 'root:x:0:\ndaemon:x:1:\ntty:x:5:\ngames:x:60:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n';
const env = { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] };
const shell: ImageConfigInput = { ...env, Cmd: ['sh'] };

function put(directory: string, file: string, content: string | Buffer, mode = 0o644): void {
  const full = path.join(directory, file);
  mkdirSync(path.dirname(full), { recursive: true });
  writeFileSync(full, content);
  chmodSync(full, mode);
}

/** A program with the libraries that it loads. */
function program(directory: string, file: string): void {
  const copy = (from: string): void => {
    const to = path.join(directory, from);
    if (existsSync(to)) return;
    mkdirSync(path.dirname(to), { recursive: true });
    copyFileSync(from, to);
    chmodSync(to, 0o755);
  };
  copy(file);
  const output = execFileSync('ldd', [file], { encoding: 'utf8' });
  for (const [library] of output.matchAll(/\/[^\s)]+/g)) copy(library);
}

function base(directory: string): void {
  for (const folder of 'bin etc root usr/bin usr/sbin var/www home dev proc sys tmp'.split(' ')) {
    mkdirSync(path.join(directory, folder), { recursive: true });
  }
  chmodSync(path.join(directory, 'tmp'), 0o1777);
  put(directory, 'bin/busybox', readFileSync('/bin/busybox'), 0o755);
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n')) {
    if (applet !== 'busybox') symlinkSync('busybox', path.join(directory, 'bin', applet));
  }
  for (const tool of ['/usr/bin/ipcs', '/usr/bin/pgrep']) program(directory, tool);
  put(directory, 'etc/passwd', passwd);
  put(directory, 'etc/group', group);
}

const nginx =
  (port: number): LayerBuilder =>
  (directory) => {
    for (const folder of ['var/log/nginx', 'var/lib/nginx', 'var/run', 'run']) {
      mkdirSync(path.join(directory, folder), { recursive: true });
    }
    program(directory, '/usr/sbin/nginx');
    put(directory, 'usr/share/nginx/html/index.html', '<html><head><title>Welcome to nginx!</title></head></html>\n');
    const server = `server { listen ${port}; root /usr/share/nginx/html; index index.html; }`;
    put(
      directory,
      'etc/nginx/nginx.conf',
      `user root;\nworker_processes 1;\ndaemon off;\nerror_log /dev/stderr;\npid /var/run/nginx.pid;\n` +
        `events { worker_connections 64; }\nhttp { access_log /dev/stdout; ${server} }\n`,
    );
  };

/** Prints who it runs as: what critest looks for to see whether setuid works. */
const whoami =
  '#include <stdio.h>\n#include <unistd.h>\nint main(){ printf("Effective uid: %d\\n", geteuid()); return 0; }\n';

interface Wanted {
  repository: string;
  tags: string[];
  layers: LayerBuilder[];
  config: ImageConfigInput;
}

function wanted(compiled: string): Wanted[] {
  const images: Wanted[] = [];
  const add = (repository: string, tags: string[], config: ImageConfigInput, ...layers: LayerBuilder[]) =>
    images.push({ repository, tags, layers: [base, ...layers], config });
  const marked =
    (text: string): LayerBuilder =>
    (directory) =>
      put(directory, 'test-image', text);
  const tools = 'k8s-staging-cri-tools';
  for (const repository of ['library/busybox', 'e2e-test-images/busybox']) {
    add(repository, ['latest', '1.29-2', '1.36', '1.36.1', '1.37.0'], shell);
  }
  for (const version of ['3.8', '3.9', '3.10', '3.10.1', '3.10.2']) {
    add('pause', [version], { Entrypoint: ['/bin/tail', '-f', '/dev/null'], User: '65535:65535' }, marked(version));
  }
  const serve = { ...env, Entrypoint: ['/usr/sbin/nginx'], Cmd: ['-c', '/etc/nginx/nginx.conf'] };
  add('e2e-test-images/nginx', ['1.14-2', '1.14-4', '1.15-4'], serve, nginx(80));
  add(`${tools}/hostnet-nginx-amd64`, ['latest'], serve, nginx(12003));
  const httpd = 'echo httpd starting; exec httpd -f -vv -p 80 -h /usr/local/htdocs';
  add('e2e-test-images/httpd', ['2.4.39-4'], { ...env, Cmd: ['sh', '-c', httpd] }, (directory) =>
    put(directory, 'usr/local/htdocs/index.html', '<html><body><h1>It works!</h1></body></html>\n'),
  );
  add('e2e-test-images/nonewprivs', ['1.3'], { ...env, User: '1000', Entrypoint: ['/nnp'] }, (directory) => {
    copyFileSync(compiled, path.join(directory, 'nnp'));
    chownSync(path.join(directory, 'nnp'), 0, 0);
    chmodSync(path.join(directory, 'nnp'), 0o4755);
    put(directory, 'etc/passwd', `${passwd}default-user:x:1000:1000::/home:/bin/sh\n`);
  });
  const consumer = { ...env, Entrypoint: ['/bin/sh', '-c', 'mkdir -p /w; httpd -f -p 8080 -h /w'] };
  add('e2e-test-images/resource-consumer', ['1.10'], consumer);
  for (const [name, user] of Object.entries({
    uid: '1002',
    username: 'www-data',
    'uid-group': '1003:users',
    'username-group': 'www-data:100',
  })) {
    add(`${tools}/test-image-user-${name}`, ['latest'], { ...shell, User: user });
  }
  add(`${tools}/test-image-predefined-group`, ['latest'], { ...shell, User: '1000' }, (directory) => {
    put(directory, 'etc/passwd', `${passwd}default-user:x:1000:1000::/home/default-user:/bin/sh\n`);
    put(directory, 'etc/group', `${group}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n`);
  });
  add(`${tools}/test-image-latest`, ['latest'], shell, marked('latest'));
  add(`${tools}/test-image-tag`, ['test', 'all'], shell, marked('tag'));
  add(`${tools}/test-image-digest`, ['latest'], shell, marked('digest'));
  for (const number of ['1', '2', '3']) add(`${tools}/test-image-${number}`, ['latest'], shell, marked(number));
  add(`${tools}/test-image-tags`, ['1', '2', '3'], shell, marked('tags'));
  return images;
}

/** What is needed to make them, if it is not there. */
export function missingForImages(): string | false {
  for (const file of [
    '/usr/sbin/nginx',
    '/usr/bin/ipcs',
    '/usr/bin/pgrep',
    '/usr/bin/gcc',
    '/usr/sbin/iptables',
    '/bin/busybox',
  ]) {
    if (!existsSync(file)) return `${file} is not installed`;
  }
  return false;
}

/** Makes them all and pushes them. */
export async function fillCritestImages(folder: string, registry: TestRegistry): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const compiled = path.join(folder, 'whoami');
  writeFileSync(`${compiled}.c`, whoami);
  execFileSync('gcc', ['-static', '-o', compiled, `${compiled}.c`]);
  const layout = path.join(folder, 'layout');
  const built = new Map<LayerBuilder, BuiltLayer>();
  for (const { repository, tags, layers, config } of wanted(compiled)) {
    for (const layer of layers) if (!built.has(layer)) built.set(layer, await buildLayer(layout, layer));
    const name = `${repository.replaceAll('/', '-')}-${tags[0]}`;
    const parts = layers.map((layer) => built.get(layer)!);
    writeImage(layout, parts, config, name);
    for (const tag of tags) await registry.fill(layout, `${repository}:${tag}`, name);
  }
}
