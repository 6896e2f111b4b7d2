// Makes the NRI SDK a package that any project can install: JavaScript with its types and samples, which needs @bufbuild/protobuf only.
// `pack-nri.mjs [DIRECTORY]` answers the file's path; the directory is dist/ by default.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const source = path.join(top, 'packages/nri');
const target = path.resolve(process.argv[2] ?? path.join(top, 'dist'));
const scratch = mkdtempSync(path.join(os.tmpdir(), 'gantry-pack-nri-'));
try {
  const folder = path.join(scratch, 'package');
  await bundle(folder);
  types(folder);
  const { name, version, description, license } = JSON.parse(readFileSync(path.join(source, 'package.json'), 'utf8'));
  const { dependencies } = JSON.parse(readFileSync(path.join(top, 'package.json'), 'utf8'));
  const needed = ['@bufbuild/protobuf', 'yaml'];
  const manifest = {
    ...{ name, version, description, license, type: 'module' },
    exports: { '.': { types: './types/index.d.ts', default: './index.js' } },
    bin: Object.fromEntries(samples().map((sample) => [`nri-${sample}`, `samples/${sample}.js`])),
    engines: { node: '>=22' },
    dependencies: Object.fromEntries(needed.map((each) => [each, dependencies[each] ?? installed(each)])),
  };
  writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  cpSync(path.join(top, 'docs/nri.md'), path.join(folder, 'README.md'));
  cpSync(path.join(top, 'LICENSE'), path.join(folder, 'LICENSE'));
  mkdirSync(target, { recursive: true });
  // What npm packs is no more than this.
  const file = path.join(target, `gantry-nri-${version}.tgz`);
  execFileSync('tar', ['-czf', file, '-C', scratch, 'package']);
  console.log(file);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function samples() {
  const names = readdirSync(path.join(source, 'samples')).map((file) => path.parse(file).name);
  return names.filter((name) => name !== 'annotations');
}

function installed(name) {
  return JSON.parse(readFileSync(path.join(top, 'node_modules', name, 'package.json'), 'utf8')).version;
}

async function bundle(folder) {
  const common = { absWorkingDir: top, bundle: true, platform: 'node', target: 'node22', format: 'esm' };
  const external = ['@bufbuild/protobuf', '@bufbuild/protobuf/*', 'yaml'];
  await build({ ...common, entryPoints: ['packages/nri/src/index.ts'], outdir: folder, external });
  await build({
    ...common,
    entryPoints: samples().map((name) => `packages/nri/samples/${name}.ts`),
    outdir: path.join(folder, 'samples'),
    external: [...external, '@gantry/nri'],
    banner: { js: '#!/usr/bin/env node' },
  });
}

/** Declarations of the SDK and of the messages that they speak of. */
function types(folder) {
  const out = path.join(scratch, 'declared');
  const flags = '--declaration --emitDeclarationOnly --noEmit false --skipLibCheck --strict --target es2024'.split(' ');
  const modules = '--module nodenext --allowImportingTsExtensions --exactOptionalPropertyTypes --types node'.split(' ');
  const args = ['packages/nri/src/index.ts', ...flags, ...modules, '--rootDir', 'packages', '--outDir', out];
  const compiler = path.join(top, 'node_modules/.bin/tsc');
  const { status, stdout } = spawnSync(compiler, ['--ignoreConfig', ...args], { cwd: top, encoding: 'utf8' });
  if (status !== 0) throw new Error(`tsc: ${stdout}`);
  const messages = '@gantry/api/gen/nri/v1alpha1/api_pb.js';
  const declared = path.join(out, 'nri/src');
  const to = path.join(folder, 'types');
  mkdirSync(to);
  for (const file of readdirSync(declared).filter((name) => name.endsWith('.d.ts'))) {
    const text = readFileSync(path.join(declared, file), 'utf8')
      .replaceAll(messages, './api_pb.js')
      .replaceAll(/(?<=from '|from "|import\(')(\.\/[\w-]+)\.ts(?=['"])/g, '$1.js');
    if (text.includes('@gantry/')) throw new Error(`${file} speaks of another package: ${text}`);
    writeFileSync(path.join(to, file), text);
  }
  cpSync(path.join(top, 'packages/api/src/gen/nri/v1alpha1/api_pb.d.ts'), path.join(to, 'api_pb.d.ts'));
}
