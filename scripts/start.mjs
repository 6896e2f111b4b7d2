// `npm start`: from a fresh checkout to a running container. Installs, builds, finds an OCI runtime, starts the daemon with
// a root of its own, runs the image that ships with the project, and goes on serving. With `--once` it stops after the
// container and leaves nothing behind.
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { helloArchive, helloName, helloText } from './hello-image.mjs';
import { findRuntime, missingForContainers, prepare, SetupError, snapshotter, top } from './setup.mjs';

const once = process.argv.includes('--once');
const name = once ? `gantry-once-${process.pid}` : 'gantry-start';
const root = `/var/lib/${name}`;
const state = `/run/${name}`;
const address = path.join(state, 'gantry.sock');
const logFile = path.join(root, 'gantryd.log');
const ctrFile = path.join(top, 'bin/ctr');

let daemon;

/** Starts gantryd and waits until it answers. */
async function startDaemon(runtime) {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  mkdirSync(state, { recursive: true, mode: 0o711 });
  const config = path.join(root, 'config.toml');
  const text = [
    'version = 4',
    `root = '${root}'`,
    `state = '${state}'`,
    'imports = []',
    "[plugins.'io.containerd.server.v1.grpc']",
    `address = '${address}'`,
    "[plugins.'io.containerd.internal.v1.opt']",
    `path = '${root}/opt'`,
    "[plugins.'io.containerd.nri.v1.nri']",
    `socket_path = '${root}/nri.sock'`,
    `plugin_path = '${root}/nri/plugins'`,
    `plugin_config_path = '${root}/nri/conf.d'`,
    "[plugins.'io.containerd.shim.v1.manager']",
    "idle_timeout = '1s'",
    '',
  ].join('\n');
  writeFileSync(config, text, { mode: 0o600 });
  const log = openSync(logFile, 'a', 0o600);
  daemon = spawn(path.join(top, 'bin/gantryd'), ['--config', config], {
    stdio: ['ignore', log, log],
    env: { ...process.env, GANTRY_RUNTIME: runtime },
    // Its own group, so that the terminal's Ctrl-C reaches this program alone and the daemon is stopped in order.
    detached: true,
  });
  closeSync(log);
  daemon.ended = new Promise((resolve) => {
    daemon.once('error', (error) => resolve(error.message));
    daemon.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  let end;
  let answer = 'no socket';
  void daemon.ended.then((how) => {
    end = how;
  });
  for (let tries = 0; tries < 200; tries++) {
    if (end !== undefined) break;
    if (existsSync(address)) {
      const asked = ctr(['version']);
      if (asked.status === 0) return;
      answer = (asked.stderr || asked.error?.message || '').trim().split('\n').at(-1);
    }
    await sleep(100);
  }
  const tail = readFileSync(logFile, 'utf8').trim().split('\n').slice(-15).join('\n');
  throw new SetupError(
    `the daemon did not start (${end ?? `after 20 seconds: ${answer}`}); its log (${logFile}) ends with:\n${tail}`,
  );
}

function ctr(args, output = 'pipe') {
  return spawnSync(ctrFile, ['--address', address, ...args], { stdio: ['ignore', output, output], encoding: 'utf8' });
}

function mustCtr(...args) {
  const result = ctr(args);
  if (result.status === 0) return result.stdout;
  throw new SetupError(
    `ctr ${args.join(' ')}: ${(result.stderr || result.stdout || result.error?.message || '').trim()}`,
  );
}

/** Imports the shipped image, runs it, and checks what it printed. */
function runHello() {
  const archive = path.join(state, 'hello.tar');
  writeFileSync(archive, helloArchive());
  const driver = snapshotter();
  if (driver !== 'overlayfs') console.log('this kernel has no overlayfs: using the native snapshotter, which copies');
  mustCtr('image', 'import', '--snapshotter', driver, archive);
  rmSync(archive);
  const id = `hello-${process.pid}`;
  console.log(`$ ctr run --rm ${helloName} ${id}`);
  const output = mustCtr('run', '--rm', '--snapshotter', driver, helloName, id);
  process.stdout.write(output);
  if (output !== helloText)
    throw new SetupError(`the container printed ${JSON.stringify(output)} instead of ${JSON.stringify(helloText)}`);
}

/** Processes whose command line names our directories: the daemon and its shims. */
function ourProcesses() {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return words.some((word) => word.includes(`${state}/`) || word.includes(`${root}/`));
      } catch {
        return false;
      }
    })
    .map(Number);
}

function ourMounts() {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${state}/`) || point.startsWith(`${root}/`));
}

/** Stops the daemon, and with `--once` everything else; a failed run keeps its log. @returns what is left, in words */
async function stop(failed) {
  if (daemon?.pid) {
    daemon.kill('SIGTERM');
    const timer = setTimeout(() => daemon.kill('SIGKILL'), 10_000);
    await daemon.ended;
    clearTimeout(timer);
  }
  if (!once) return [];
  for (let tries = 0; tries < 150 && ourProcesses().length > 0; tries++) await sleep(100);
  const left = [
    ...ourProcesses().map(
      (pid) => `process ${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`,
    ),
    ...ourMounts().map((point) => `mount ${point}`),
  ];
  if (left.length === 0 && !failed) for (const dir of [root, state]) rmSync(dir, { recursive: true, force: true });
  return left;
}

async function main() {
  const missing = missingForContainers();
  if (missing.length > 0) {
    prepare();
    throw new SetupError(
      `cannot run containers here; missing:\n  ${missing.join('\n  ')}\n` +
        'What still works: the build (done), "npm test" (tests that need root say so and are skipped), and bin/ctr against another daemon.',
    );
  }
  prepare();
  const runtime = findRuntime();
  console.log(`using ${runtime}`);
  await startDaemon(runtime);
  runHello();
  if (once) {
    // An empty namespace goes with the cgroup that its containers were under.
    mustCtr('image', 'rm', '--sync', helloName);
    mustCtr('namespaces', 'rm', 'default');
    return;
  }
  console.log(`
gantryd serves on ${address} (log: ${logFile}). Try:
  ${path.relative(process.cwd(), ctrFile)} -a ${address} run --rm ${helloName} hello
  ${path.relative(process.cwd(), ctrFile)} -a ${address} image pull docker.io/library/busybox:latest
  ${path.relative(process.cwd(), ctrFile)} -a ${address} plugins ls
Ctrl-C stops it.`);
  const stopped = new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => resolve(undefined));
  });
  const ended = await Promise.race([stopped, daemon.ended]);
  if (ended !== undefined) throw new SetupError(`the daemon ended by itself (${ended}); see ${logFile}`);
}

let code = 0;
try {
  await main();
} catch (error) {
  console.error(error instanceof SetupError ? `gantry: ${error.message}` : error);
  code = 1;
}
const left = await stop(code !== 0);
if (left.length > 0) {
  console.error(`gantry: these are left over:\n  ${left.join('\n  ')}`);
  code = 1;
}
process.exit(code);
