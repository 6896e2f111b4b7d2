// Generates packages/api/src/gen from the .proto files, with buf and protoc-gen-es from node_modules. Does nothing if
// neither the .proto files nor the generator have changed since; otherwise generates aside and swaps only what differs,
// so that a program that runs from this checkout never finds a file missing.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const bin = path.join(top, 'node_modules', '.bin');
const proto = path.join(top, 'packages/api/proto');
const target = path.join(top, 'packages/api/src/gen');
const cache = path.join(top, '.cache');
const stampFile = path.join(cache, 'generated');

function filesOf(dir) {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(dir, path.join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

function stamp() {
  const hash = createHash('sha256');
  for (const name of filesOf(proto))
    hash
      .update(name)
      .update('\0')
      .update(readFileSync(path.join(proto, name)));
  for (const name of ['buf.gen.yaml', 'package-lock.json']) hash.update(readFileSync(path.join(top, name)));
  for (const name of filesOf(target)) hash.update(name);
  return hash.digest('hex');
}

mkdirSync(cache, { recursive: true });
if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp()) process.exit(0);

const aside = mkdtempSync(path.join(cache, 'generate-'));
try {
  const result = spawnSync(path.join(bin, 'buf'), ['generate', '--output', aside], {
    cwd: top,
    stdio: 'inherit',
    env: { ...process.env, PATH: `${bin}${path.delimiter}${process.env.PATH ?? ''}` },
  });
  if (result.status !== 0) process.exit(result.status ?? 1);
  const made = path.join(aside, 'packages/api/src/gen');
  const names = filesOf(made);
  for (const name of names) {
    const to = path.join(target, name);
    const from = path.join(made, name);
    if (existsSync(to) && readFileSync(to).equals(readFileSync(from))) continue;
    mkdirSync(path.dirname(to), { recursive: true });
    cpSync(from, `${to}.new`);
    renameSync(`${to}.new`, to);
  }
  for (const name of filesOf(target)) if (!names.includes(name)) rmSync(path.join(target, name));
  writeFileSync(stampFile, stamp());
} finally {
  rmSync(aside, { recursive: true, force: true });
}
