// The thread that watches the main one: answers for it on a socket of its own, and writes down where it is when it is long in coming.
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, renameSync, rmdirSync, writeSync } from 'node:fs';
import type { Server } from 'node:http';
import { createServer } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import type { ThreadWatchOptions, WatchMessage } from './thread-watch.ts';

const { socket, blockedAfterMs, logFormat } = workerData as ThreadWatchOptions;
const main = parentPort!;
/** How long a request waits for the main thread's answer, to say whether it gives one. */
const patienceMs = 200;

/** When the question went out that was not answered yet. */
let asked: number | undefined;
const answered: (() => void)[] = [];
/** The main thread's stack is being read, or has been written down: then its answer is going to be, too. */
let told: 'no' | 'reading' | 'yes' = 'no';

function ask(): void {
  if (asked !== undefined) return;
  asked = performance.now();
  main.postMessage('ping' satisfies WatchMessage);
}

main.on('message', (message: WatchMessage) => {
  if (message !== 'pong' || asked === undefined) return;
  if (told === 'yes') log('main thread answers again', { blocked_ms: Math.round(performance.now() - asked) });
  asked = undefined;
  told = 'no';
  for (const resolve of answered.splice(0)) resolve();
});

/** Milliseconds for which the main thread has not answered; 0 if it does. */
async function busy(): Promise<number> {
  ask();
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    new Promise<void>((resolve) => answered.push(resolve)),
    new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patienceMs);
    }),
  ]);
  clearTimeout(timer);
  return busyMs();
}

const busyMs = (): number => (asked === undefined ? 0 : performance.now() - asked);

/** Whether the main thread waits for events, which is no reason to wake it with a question. */
function mainRests(): boolean {
  try {
    const stat = readFileSync(`/proc/self/task/${process.pid}/stat`, 'latin1');
    if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'S') return false;
    const waits = readFileSync(`/proc/self/task/${process.pid}/wchan`, 'latin1');
    // A kernel that does not tell what a thread waits for has it asked after nothing.
    return waits === '0' || waits === '' || waits.includes('epoll') || waits.includes('ep_poll');
  } catch {
    return true;
  }
}

async function look(): Promise<void> {
  if (asked === undefined) {
    if (!mainRests()) ask();
    return;
  }
  if (told !== 'no' || busyMs() < blockedAfterMs) return;
  const question = asked;
  told = 'reading';
  const { mainStack } = await import('./watch-routes.ts');
  const stack = await mainStack(busyMs()).catch((error: Error) => `no stack: ${error.message}`);
  // It may have come back while it was asked.
  if (asked !== question) return;
  told = 'yes';
  log('main thread is blocked', { blocked_ms: Math.round(busyMs()), stack });
}

/** Straight to the descriptor: a worker's streams go through the main thread. */
function log(message: string, fields: { blocked_ms: number; stack?: string }): void {
  const line = { time: new Date().toISOString(), level: 'warning', msg: message, ...fields };
  const text =
    logFormat === 'json'
      ? JSON.stringify(line)
      : Object.entries(line)
          .map(
            ([name, value]) =>
              `${name}=${typeof value === 'string' && name !== 'level' ? JSON.stringify(value) : value}`,
          )
          .join(' ');
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // Whoever reads the log is gone, or does not keep up.
  }
}

/** A worker cannot set the umask: the socket is made where nobody else comes, and put in its place when its mode is right. */
async function listen(): Promise<void> {
  const room = mkdtempSync(`${socket}.`);
  const fd = openSync(room, 'r');
  try {
    const name = `/proc/self/fd/${fd}/s`;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(name, resolve);
    });
    chmodSync(name, 0o600);
    renameSync(name, socket);
  } finally {
    closeSync(fd);
    rmdirSync(room);
  }
}

/** Made for the first who asks: HTTP and the inspector take more memory than this thread does without. */
let answering: Promise<Server> | undefined;
async function makeAnswering(): Promise<Server> {
  const { answerRoutes } = await import('./debug-http.ts');
  const { watchRoutes } = await import('./watch-routes.ts');
  const sources = { variables: () => ({ pid: process.pid, busyMs: busyMs() }), activities: () => [] };
  const answer = answerRoutes(watchRoutes(busyMs), sources);
  return process.getBuiltinModule('node:http').createServer(async (request, response) => {
    await busy();
    answer(request, response);
  });
}

const server = createServer({ pauseOnConnect: true }, (connection) => {
  connection.on('error', () => connection.destroy());
  answering ??= makeAnswering();
  answering.then(
    (http) => {
      http.emit('connection', connection);
      connection.resume();
    },
    () => connection.destroy(),
  );
});
try {
  await listen();
  main.postMessage('ready' satisfies WatchMessage);
  if (blockedAfterMs > 0) setInterval(() => void look(), Math.max(50, blockedAfterMs / 4));
} catch (error) {
  main.postMessage({ failed: (error as Error).message } satisfies WatchMessage);
}
