// Checks the list of rooms (docs/architecture.md): which package may import which, and inside the daemon that services/
// and core/ do not reach sideways into server/ or plugins/. Exits 1 with one line for each import that is not allowed.
import { globSync, readFileSync } from 'node:fs'; // Node 22 and later: run it with the project's own
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const below = ['sys', 'api', 'rpc', 'tracing', 'oci', 'mount', 'cgroups', 'archive', 'registry'];
const rooms = {
  sys: [],
  api: [],
  rpc: ['api'],
  tracing: ['api'],
  oci: ['api'],
  mount: ['sys', 'api'],
  cgroups: ['sys', 'api'],
  archive: ['sys', 'api', 'oci'],
  registry: ['api', 'oci'],
  client: ['sys', 'api', 'rpc', 'oci'],
  shim: ['sys', 'api', 'rpc', 'tracing', 'oci', 'mount', 'cgroups', 'archive'],
  nri: ['api', 'rpc', 'oci'],
  cni: ['sys', 'api', 'oci'],
  daemon: below,
  cri: [...below, 'nri', 'cni', 'daemon'],
  migrate: [...below, 'nri', 'cni', 'daemon', 'cri'],
  gantryd: [...below, 'nri', 'cni', 'daemon', 'cri', 'migrate', 'client', 'shim'],
  ctr: ['client', 'oci', 'registry', 'archive', 'mount', 'cni'],
};
const errors = [];
for (const file of globSync('packages/*/src/**/*.ts', { cwd: top }).sort()) {
  const [, room] = file.split(path.sep);
  if (file.includes('/gen/')) continue;
  const isTest = file.endsWith('.test.ts');
  const text = readFileSync(path.join(top, file), 'utf8');
  for (const match of text.matchAll(/^(?:import|export)\b[^;'"]*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm)) {
    const target = match[1] ?? match[2];
    const other = /^@gantry\/([^/]+)/.exec(target)?.[1];
    if (other && other !== room && !rooms[room]?.includes(other))
      errors.push(`${file}: ${room} may not import ${other}`);
    if (!target.startsWith('.')) continue;
    const resolved = path.relative(top, path.resolve(top, path.dirname(file), target));
    if (!resolved.startsWith(`packages/${room}/`)) errors.push(`${file}: leaves its room by ${target}`);
    if (room !== 'daemon' || isTest) continue;
    const from = file.split(path.sep)[3];
    const to = resolved.split(path.sep)[3];
    const allowed = {
      core: ['core'],
      plugins: ['core', 'plugins'],
      services: ['core', 'services'],
      server: ['core', 'server'],
    }[from];
    if (allowed && !allowed.includes(to)) errors.push(`${file}: daemon/${from} may not import daemon/${to}`);
  }
}
for (const error of errors) console.error(error);
if (errors.length > 0) process.exit(1);
console.log('rooms: imports point down');
