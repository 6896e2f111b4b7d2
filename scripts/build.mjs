// Bundles the programs and their workers into dist/ with esbuild. Does nothing if no input has changed since the last time.
// `build.mjs gantryd ctr` bundles only those programs (and the workers), and leaves the others as they are.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const dist = path.join(top, 'dist');

/** The programs, by the name of their launcher in bin/. */
const programs = {
  gantryd: 'packages/gantryd/src/gantryd.ts',
  ctr: 'packages/ctr/src/main.ts',
  'gantry-shim': 'packages/shim/src/main.ts',
};

/** Files that are read as they are, by the folder in dist/ where their reader looks. */
const assets = { 'live-page': 'packages/daemon/src/plugins/live/page' };

/** Entry points of worker threads; each becomes dist/<file name>.js, where the program that starts it looks. */
const workers = [
  'packages/cri/src/logs/log-worker.ts',
  'packages/archive/src/archive-worker.ts',
  'packages/daemon/src/core/snapshots/tree-worker.ts',
  'packages/daemon/src/core/trust/module-worker.ts',
  'packages/nri/src/runtime/wasm/wasm-worker.ts',
];

/**
 * Modules that must stay outside: they load a native library from beside their own files; or, OpenTelemetry, are seldom wanted and
 * large, and take a second copy of their parts for somebody else's.
 */
const external = ['koffi', 'lmdb', '@opentelemetry/*'];

/**
 * Node's modules with exports that load a lot once they are looked at (`node:http` has all of its own undici behind three of them). An
 * import of ECMAScript looks at all exports: 25 ms of a start and two megabytes. Taken this way only what is used is looked at.
 */
const lazyBuiltins = {
  name: 'lazy-builtins',
  setup(build) {
    build.onResolve({ filter: /^node:(http|util)$/ }, (what) => ({ path: what.path, namespace: 'lazy-builtin' }));
    build.onLoad({ filter: /.*/, namespace: 'lazy-builtin' }, (what) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(what.path)});`,
    }));
  },
};

function files() {
  const patterns = ['packages/*/src/**/*.{ts,js,css,html}', 'package-lock.json', 'scripts/build.mjs'];
  return patterns
    .flatMap((pattern) => glob(pattern))
    .filter((file) => !file.endsWith('.test.ts') && !file.endsWith('.d.ts'))
    .sort();
}

/** Node 20 has no globSync; there the set-up runs this script again on the project's own Node. */
function glob(pattern) {
  return globSync(pattern, { cwd: top });
}

function revision() {
  try {
    const head = execFileSync('git', ['-C', top, 'rev-parse', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const changes = execFileSync('git', ['-C', top, 'status', '--porcelain', '--untracked-files=no'], {
      encoding: 'utf8',
    });
    return head.trim() + (changes.trim() === '' ? '' : '.m');
  } catch {
    // A source archive has no history.
    return '';
  }
}

const git = revision();
const stamp = createHash('sha256').update(git);
for (const file of files()) {
  const { mtimeMs, size } = statSync(path.join(top, file));
  stamp.update(`${file}\0${mtimeMs}\0${size}\n`);
}
const digest = stamp.digest('hex');
const stampFile = path.join(dist, '.stamp');
const only = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
if (only.length === 0 && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === digest) {
  console.log('build: dist/ is up to date');
  process.exit(0);
}

const { build } = await import('esbuild');
const started = Date.now();
const common = {
  absWorkingDir: top,
  outdir: dist,
  bundle: true,
  platform: 'node',
  target: 'node26',
  format: 'esm',
  external,
  plugins: [lazyBuiltins],
  sourcemap: false,
  legalComments: 'none',
  logLevel: 'warning',
  define: { GANTRY_REVISION: JSON.stringify(git) },
  // CommonJS dependencies (undici) ask for Node's modules by require.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
};
rmSync(stampFile, { force: true });
mkdirSync(dist, { recursive: true });
const present = Object.entries(programs).filter(([name, file]) => {
  if (only.length > 0 && !only.includes(name)) return false;
  if (existsSync(path.join(top, file))) return true;
  console.warn(`build: ${name} is left out: there is no ${file}`);
  return false;
});
const made = new Set();
const results = await Promise.all([
  ...present.map(([name, file]) =>
    build({
      ...common,
      entryPoints: { [`${name}-main`]: file },
      splitting: true,
      chunkNames: `${name}-[hash]`,
      metafile: true,
    }),
  ),
  build({ ...common, entryPoints: workers, entryNames: '[name]', metafile: true }),
  // This one is always there and seldom asked: what it answers with is a part of its own.
  build({
    ...common,
    entryPoints: ['packages/sys/src/debug/watch-worker.ts'],
    entryNames: '[name]',
    splitting: true,
    chunkNames: 'watch-worker-[hash]',
    metafile: true,
  }),
]);
for (const result of results) for (const file of Object.keys(result.metafile.outputs)) made.add(path.basename(file));
for (const [name] of present) {
  // The cache of compiled code has to be on before the program's own modules are loaded.
  const entry = [
    "import { enableCompileCache } from 'node:module';",
    "enableCompileCache(import.meta.dirname + '/.cache');",
    `await import('./${name}-main.js');`,
    '',
  ].join('\n');
  writeFileSync(path.join(dist, `${name}.js`), entry);
  made.add(`${name}.js`);
}
for (const [name, from] of Object.entries(assets)) {
  if (existsSync(path.join(top, from))) cpSync(path.join(top, from), path.join(dist, name), { recursive: true });
}
if (only.length === 0) {
  // A program that still runs from the last bundle may yet load a part of it, so parts are kept for a day.
  const old = Date.now() - 24 * 3600 * 1000;
  for (const file of glob('dist/*.js')) {
    const full = path.join(top, file);
    if (!made.has(path.basename(file)) && statSync(full).mtimeMs < old) rmSync(full);
  }
  writeFileSync(stampFile, digest);
}
console.log(
  `build: ${present.map(([name]) => name).join(', ')} and ${workers.length + 1} workers in ${Date.now() - started} ms`,
);
