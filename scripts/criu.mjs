// Puts a CRIU into .cache/criu that knows this year's kernels: Debian's stable release of 2025 has one, older releases run on with
// theirs. Its packages are unpacked beside their own libraries and nothing of it is installed, as gantry-shim makes containers
// differently where a `criu` is in the PATH.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isRoot, top, which } from './setup.mjs';

const release = 'trixie';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** Holds `criu`, to be put in front of a PATH. */
export const criuDirectory = path.join(top, '.cache/criu');

function run(program, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', ...options });
  if (status !== 0) throw new Error(`${program} ${args[0]}: ${stderr?.trim().split('\n').at(-1) ?? status}`);
  return stdout;
}

/** Where this machine gets Debian from. */
function mirror() {
  const targets = run('apt-get', [
    'indextargets',
    '--format',
    '$(REPO_URI) $(ORIGIN) $(COMPONENT)',
    'Created-By: Packages',
  ]);
  const uri = targets
    .split('\n')
    .find((line) => line.endsWith(' Debian main'))
    ?.split(' ')[0];
  if (!uri) throw new Error('no source of Debian is configured');
  return uri;
}

function fetch(directory) {
  for (const name of ['state/lists/partial', 'cache/archives/partial', 'root'])
    mkdirSync(path.join(directory, name), { recursive: true });
  const sources = path.join(directory, 'sources.list');
  writeFileSync(sources, `deb [signed-by=${keyring}] ${mirror()} ${release} main\n`);
  writeFileSync(path.join(directory, 'state/status'), '');
  const options = Object.entries({
    'Dir::State': path.join(directory, 'state'),
    'Dir::State::status': path.join(directory, 'state/status'),
    'Dir::Cache': path.join(directory, 'cache'),
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '/dev/null',
    'APT::Sandbox::User': 'root',
  }).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  run('apt-get', [...options, 'update', '-qq']);
  run('apt-get', [...options, 'install', '-y', '-qq', '--no-install-recommends', '--download-only', 'criu']);
  const archives = path.join(directory, 'cache/archives');
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb')))
    run('dpkg-deb', ['-x', path.join(archives, name), path.join(directory, 'root')]);
  for (const name of ['state', 'cache']) rmSync(path.join(directory, name), { recursive: true });
}

/** Fetches it if it is not there. @returns why that was not possible */
export function installCriu() {
  const program = path.join(criuDirectory, 'criu');
  if (existsSync(program)) return undefined;
  if (process.arch !== 'x64' || !isRoot() || !which('apt-get') || !existsSync(keyring))
    return 'this is not root on Debian (x64)';
  const making = `${criuDirectory}.new`;
  rmSync(making, { recursive: true, force: true });
  try {
    fetch(making);
    const root = path.join(criuDirectory, 'root');
    const libraries = [`${root}/usr/lib/x86_64-linux-gnu`, `${root}/lib/x86_64-linux-gnu`].join(':');
    const loader = `${root}/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2`;
    const script = `#!/bin/sh\nexec '${loader}' --library-path '${libraries}' '${root}/usr/sbin/criu' "$@"\n`;
    writeFileSync(path.join(making, 'criu'), script);
    chmodSync(path.join(making, 'criu'), 0o755);
    rmSync(criuDirectory, { recursive: true, force: true });
    renameSync(making, criuDirectory);
    return undefined;
  } catch (error) {
    return error.message;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}
