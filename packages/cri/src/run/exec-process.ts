import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Code,
  deadlineExceeded,
  failedPrecondition,
  hasCode,
  jsonAny,
  StatusError,
  TypeUrl,
  unknown,
} from '@gantry/api';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { removeAllBeneath } from '@gantry/mount';
import { encodeJson, parseJson, type RuntimeSpec, replaceEnvironment } from '@gantry/oci';
import { close, O, openFifoReader, openFifoWriter } from '@gantry/sys';
import { type Cri, criContext, dirs } from '../cri.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { makeFifos } from './container-io.ts';
import { StreamBridge, streamAddress, streamUrls } from './stream-bridge.ts';

export interface ExecOptions {
  command: readonly string[];
  terminal: boolean;
  stdin?: AsyncIterable<Uint8Array> | undefined;
  stdout?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  stderr?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  resize?: AsyncIterable<{ width: number; height: number }> | undefined;
  /** The process is killed when it aborts. */
  signal?: AbortSignal | undefined;
  /** How long the process may run once it has been started, milliseconds; then it is killed. 0: for as long as it likes. */
  timeoutMs?: number;
  /** How long output is waited for after the process has ended, milliseconds; 0: for as long as somebody holds it. */
  drainMs?: number;
}

const SIGKILL = 9;
/** Milliseconds that a timer of Node's can wait: 25 days. */
const longestTimer = 2 ** 31 - 1;

/** A container that runs. @throws FailedPrecondition for one that does not */
export function runningContainer(cri: Cri, id: string): CriContainer {
  const container = cri.containers.get(id);
  const state = stateOf(container.status);
  if (state !== ContainerState.CONTAINER_RUNNING) {
    throw failedPrecondition(`container is in ${ContainerState[state]} state`);
  }
  return container;
}

/** Runs a further process in a container to its end; answers its exit code. @throws DeadlineExceeded after `timeoutMs` */
export async function execProcess(cri: Cri, container: CriContainer, options: ExecOptions): Promise<number> {
  const { id } = container;
  const ctx = criContext();
  const task = cri.tasks.get(ctx, id);
  const record = await cri.records.containers.get(ctx, id);
  const spec = parseJson<RuntimeSpec>(record.spec!.value);
  const process = { ...spec.process!, args: [...options.command], terminal: options.terminal };
  if (options.terminal) process.env = replaceEnvironment(process.env ?? [], ['TERM=xterm']);
  const execId = randomBytes(32).toString('hex');
  const directory = `${dirs.containerState(cri, id)}/io-${execId}`;
  const fifos = await makeFifos(directory, execId, {
    stdin: options.stdin !== undefined,
    // containerd's shims take both outputs or none.
    stdout: true,
    stderr: !options.terminal,
  });
  const bridge = new StreamBridge(cri);
  try {
    const outputs = [pass(fifos.stdout, options.stdout), ...(fifos.stderr ? [pass(fifos.stderr, options.stderr)] : [])];
    try {
      const address = await streamAddress(cri, cri.sandboxes.get(container.metadata.sandboxId));
      const streams = address === '' ? fifos : streamUrls(address, execId, fifos);
      if (streams !== fifos) await bridge.open(streams, fifos);
      await task.exec(execId, jsonAny(TypeUrl.RuntimeSpecProcess, encodeJson(process)), {
        ...streams,
        terminal: options.terminal,
      });
      return await runToEnd(cri, task, execId, fifos.stdin, outputs, options);
    } finally {
      for (const output of outputs) output.close();
    }
  } finally {
    bridge.close();
    await removeAllBeneath(directory);
  }
}

async function runToEnd(
  cri: Cri,
  task: Task,
  execId: string,
  stdinFifo: string,
  outputs: readonly Output[],
  options: ExecOptions,
): Promise<number> {
  const kill = (): void =>
    void task.kill(execId, SIGKILL, true).catch((error) => {
      if (!hasCode(error, Code.NotFound)) cri.log.warn('exec cannot be killed', { error, id: task.id });
    });
  const begun = Promise.withResolvers<void>();
  // A shim need not know of an end that is told before there is a process.
  const closeInput = () => begun.promise.then(() => task.closeIo(execId, true));
  const stdin = options.stdin ? feed(stdinFifo, options.stdin, closeInput) : undefined;
  try {
    await task
      .start(execId)
      .catch((error: unknown) => {
        throw StatusError.wrap(error, `failed to start exec "${execId}"`);
      })
      .finally(begun.resolve);
    // The process holds its ends now: an end of output is one from here on.
    for (const output of outputs) output.started();
    options.signal?.addEventListener('abort', kill, { once: true });
    if (options.signal?.aborted) kill();
    if (options.resize) void follow(task, execId, options.resize);
    const { exitStatus } = await endWithin(options.timeoutMs ?? 0, task.wait(execId), kill);
    await drain(execId, outputs, options.drainMs ?? 0, options.signal);
    return exitStatus;
  } finally {
    options.signal?.removeEventListener('abort', kill);
    stdin?.close();
    await task.deleteProcess(execId).catch((error) => {
      if (!hasCode(error, Code.NotFound)) cri.log.warn('exec cannot be removed', { error, id: task.id });
    });
  }
}

/** Waits for the end of a process, which is killed when it takes too long. What its children hold of its output is not waited for then. */
async function endWithin<T>(timeoutMs: number, ended: Promise<T>, kill: () => void): Promise<T> {
  if (timeoutMs === 0 || timeoutMs > longestTimer) return await ended;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    kill();
  }, timeoutMs);
  const end = await ended.finally(() => clearTimeout(timer));
  if (late) throw deadlineExceeded(`timeout ${timeoutMs / 1000}s exceeded: context deadline exceeded`);
  return end;
}

async function drain(
  execId: string,
  outputs: readonly Output[],
  drainMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const all = Promise.all(outputs.map(({ ended }) => ended));
  if (signal?.aborted) return;
  const stop = new AbortController();
  const gone = new Promise<void>((resolve) =>
    signal?.addEventListener('abort', () => resolve(), { once: true, signal: stop.signal }),
  );
  const late =
    drainMs > 0 ? sleep(drainMs, 'late' as const, { signal: stop.signal }).catch(() => undefined) : undefined;
  try {
    const first = await Promise.race([all.then(() => undefined), gone, ...(late ? [late] : [])]);
    if (first === 'late') {
      // Not DeadlineExceeded, which the kubelet takes for the command's own time-out.
      throw unknown(
        `failed to drain exec process "${execId}" io in ${drainMs / 1000}s because io is still held by other processes`,
      );
    }
  } finally {
    stop.abort();
  }
}

async function follow(
  task: Task,
  execId: string,
  sizes: AsyncIterable<{ width: number; height: number }>,
): Promise<void> {
  for await (const { width, height } of sizes) await task.resizePty(execId, width, height).catch(() => undefined);
}

interface Output {
  started(): void;
  ended: Promise<void>;
  close(): void;
}

/** Reads a FIFO to its end; waits for each piece to be taken before the next is read. */
function pass(fifo: string, take: ((bytes: Uint8Array) => Promise<void>) | undefined): Output {
  const { fd, holder } = openFifoReader(fifo, { flags: O.NONBLOCK, hold: true });
  const socket = new net.Socket({ fd, readable: true, writable: false });
  let held = true;
  const started = (): void => {
    if (held) close(holder);
    held = false;
  };
  let last = Promise.resolve();
  socket.on('data', (chunk: Buffer) => {
    if (!take) return;
    socket.pause();
    last = last
      .then(() => take(chunk))
      .then(
        () => void socket.resume(),
        // Nobody takes any more: the process may write on, to nobody.
        () => void socket.resume(),
      );
  });
  const ended = new Promise<void>((resolve) => {
    socket.on('error', () => undefined);
    socket.once('close', () => void last.then(resolve));
  });
  return {
    started,
    ended,
    close: () => {
      started();
      socket.destroy();
    },
  };
}

/** Writes input into a FIFO, and says when there is no more. */
function feed(fifo: string, input: AsyncIterable<Uint8Array>, onEnd: () => Promise<void>): { close(): void } {
  const { fd, holder } = openFifoWriter(fifo, { flags: O.NONBLOCK, hold: true });
  const socket = new net.Socket({ fd, readable: false, writable: true });
  const keeper = new net.Socket({ fd: holder, readable: false, writable: false });
  socket.on('error', () => undefined);
  keeper.on('error', () => undefined);
  void (async () => {
    try {
      for await (const chunk of input) {
        if (!socket.write(chunk))
          await new Promise<void>((resolve) => socket.once('drain', resolve).once('close', resolve));
      }
    } catch {
      // The client went: an end of input as any other.
    }
    socket.end(() => keeper.destroy());
    await onEnd().catch(() => undefined);
  })();
  return {
    close: () => {
      socket.destroy();
      keeper.destroy();
    },
  };
}
