// What `npm start` and `npm test` have in common: dependencies, generated code, bundles, Debian packages, and finding an
// OCI runtime that works here by trying it. Runs on Node 20 with nothing installed.
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { helloProgram, helloText } from './hello-image.mjs';

export const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** The project's own Node, whatever runs this. */
export const node = path.join(top, 'node_modules/node/bin/node');

/** A failure whose message is all that the user needs. */
export class SetupError extends Error {}

export const isRoot = () => process.getuid?.() === 0;

/** The full path of a program, as a shell finds it. */
export function which(name) {
  const dirs = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const dir of dirs) {
    const file = path.join(dir || '.', name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not in this one.
    }
  }
  return undefined;
}

/** Runs a step with its output shown. @throws SetupError if it fails */
export function step(what, file, args, options = {}) {
  const result = spawnSync(file, args, { cwd: top, stdio: 'inherit', ...options });
  if (result.error) throw new SetupError(`${what}: ${result.error.message}`);
  if (result.status !== 0) throw new SetupError(`${what} failed (${result.signal ?? `exit code ${result.status}`})`);
}

/** Whether node_modules holds what package-lock.json says, as far as it is for this platform. */
function dependenciesInstalled() {
  if (!existsSync(node)) return false;
  const { packages } = JSON.parse(readFileSync(path.join(top, 'package-lock.json'), 'utf8'));
  return Object.entries(packages).every(([place, { version, optional, link }]) => {
    if (!place.startsWith('node_modules/')) return true;
    const file = path.join(top, place, 'package.json');
    if (!existsSync(file)) return optional === true;
    return link === true || JSON.parse(readFileSync(file, 'utf8')).version === version;
  });
}

/** Installs npm's dependencies if they are not those of package-lock.json. */
export function installDependencies() {
  if (dependenciesInstalled()) return;
  console.log('installing dependencies (npm ci) ...');
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  if (npm) step('npm ci', process.execPath, [npm, ...args]);
  else step('npm ci', 'npm', args);
  if (!existsSync(node)) throw new SetupError(`npm ci did not install the project's own Node (${node})`);
}

/** Dependencies, generated code, bundles. */
export function prepare() {
  installDependencies();
  step('generating code from the .proto files', node, ['scripts/generate.mjs']);
  step('building', node, ['scripts/build.mjs']);
}

const aptEnv = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };

/**
 * Installs Debian packages that are missing. Packages that bring a service would start it: while they are installed, a
 * policy file says no.
 */
export function aptInstall(packages) {
  if (packages.length === 0) return;
  if (!which('apt-get')) throw new SetupError(`these are needed, and this is no Debian: ${packages.join(', ')}`);
  if (!isRoot()) throw new SetupError(`not root: run apt-get install ${packages.join(' ')} and start again`);
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) {
    writeFileSync(policy, '#!/bin/sh\nexit 101\n');
    chmodSync(policy, 0o755);
  }
  try {
    console.log(`installing ${packages.join(' ')} (apt-get) ...`);
    const install = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
    const options = { env: aptEnv, stdio: ['ignore', 'ignore', 'inherit'] };
    if (spawnSync('apt-get', install, options).status === 0) return;
    step('apt-get update', 'apt-get', ['update', '-qq'], options);
    step(`apt-get install ${packages.join(' ')}`, 'apt-get', install, options);
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
}

function helloSpec(id) {
  return {
    ociVersion: '1.0.2',
    process: { user: { uid: 0, gid: 0 }, args: ['/hello'], cwd: '/', env: ['PATH=/'] },
    root: { path: 'rootfs' },
    mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
    linux: {
      cgroupsPath: `/${id}`,
      namespaces: ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
    },
  };
}

/** Runs a container with this runtime. @returns undefined if it printed what it should, else why it does not work */
export function tryRuntime(file) {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-try-'));
  const id = path.basename(dir).toLowerCase();
  try {
    mkdirSync(path.join(dir, 'bundle/rootfs/proc'), { recursive: true });
    const program = path.join(dir, 'bundle/rootfs/hello');
    writeFileSync(program, helloProgram(process.arch), { mode: 0o755 });
    writeFileSync(path.join(dir, 'bundle/config.json'), JSON.stringify(helloSpec(id)));
    const root = path.join(dir, 'state');
    const run = spawnSync(file, ['--root', root, 'run', '--bundle', path.join(dir, 'bundle'), id], {
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
      timeout: 30_000,
    });
    spawnSync(file, ['--root', root, 'delete', '--force', id], { stdio: 'ignore', timeout: 30_000 });
    if (run.error) return run.error.message;
    if (run.status === 0 && run.stdout === helloText) return undefined;
    return run.stderr.trim().split('\n').at(-1) || `exit code ${run.status}, output ${JSON.stringify(run.stdout)}`;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * The path of an OCI runtime that can run a container here: crun, else runc, installed from Debian if need be.
 * @throws SetupError that says what was tried and what to install
 */
export function findRuntime() {
  const tried = [];
  const attempt = (name) => {
    const file = which(name);
    if (!file) return undefined;
    const problem = tryRuntime(file);
    if (problem === undefined) return file;
    tried.push(`${file}: ${problem}`);
    return undefined;
  };
  for (const name of ['crun', 'runc']) {
    const file = attempt(name);
    if (file) return file;
  }
  if (which('apt-get') && isRoot()) {
    for (const name of ['crun', 'runc']) {
      if (which(name)) continue;
      try {
        aptInstall([name]);
      } catch (error) {
        tried.push(error.message);
        continue;
      }
      const file = attempt(name);
      if (file) return file;
    }
  }
  const why = tried.length === 0 ? 'neither crun nor runc is installed' : `tried:\n  ${tried.join('\n  ')}`;
  throw new SetupError(
    `no OCI runtime that can run a container here; ${why}\nInstall one: "apt-get install crun" (Debian, Ubuntu), "dnf install crun" ` +
      '(Fedora, RHEL), "apk add crun" (Alpine), "pacman -S crun" (Arch), "zypper install crun" (openSUSE).',
  );
}

/** What this machine lacks to run containers, one line each, with what works without it. */
export function missingForContainers() {
  const missing = [];
  if (process.platform !== 'linux') missing.push(`Linux (this is ${process.platform}): containers run on Linux only`);
  else {
    if (!isRoot()) missing.push('root: mounts, namespaces and cgroups need it');
    for (const name of ['pid', 'mnt', 'ipc', 'uts']) {
      if (!existsSync(`/proc/self/ns/${name}`)) missing.push(`kernel support for ${name} namespaces`);
    }
    if (!readFileSync('/proc/self/mountinfo', 'utf8').includes(' - cgroup'))
      missing.push('a cgroup file system, as on /sys/fs/cgroup');
  }
  if (!['x64', 'arm64'].includes(process.arch)) missing.push(`x86-64 or arm64 (this is ${process.arch})`);
  return missing;
}

/** overlayfs if the kernel has it, else the snapshotter that copies. */
export function snapshotter() {
  if (/\boverlay$/m.test(readFileSync('/proc/filesystems', 'utf8'))) return 'overlayfs';
  const loaded = spawnSync('modprobe', ['overlay'], { stdio: 'ignore' }).status === 0;
  return loaded && /\boverlay$/m.test(readFileSync('/proc/filesystems', 'utf8')) ? 'overlayfs' : 'native';
}
