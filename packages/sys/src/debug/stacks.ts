import type { ChildProcess } from 'node:child_process';
import type { Server, Socket } from 'node:net';
import { formatThreads, nativeThreads } from './native-threads.ts';
import { type InspectedWorker, withWorkers } from './worker-inspector.ts';

interface CallFrame {
  functionName: string;
  url: string;
  location: { scriptId: string; lineNumber: number; columnNumber: number };
}

/**
 * What the process does right now, as text: what it knows itself, what keeps the main thread's event loop alive, the stack of each worker, and all threads as the
 * kernel sees them. A worker is stopped for the moment that its stack is read.
 * @param activities one line for each thing it is busy with, or waits for
 */
export async function stacks(activities: readonly string[]): Promise<string> {
  const { active, idle } = performance.eventLoopUtilization();
  const lines = [
    `main thread (pid ${process.pid}): answers; busy for ${seconds(active)} s, at rest for ${seconds(idle)} s`,
    ...activities.map((text) => `    call ${text}`),
    ...activeHandles().map((text) => `    ${text}`),
    ...activeRequests().map((text) => `    ${text}`),
    '',
  ];
  const workers = await withWorkers((found) =>
    Promise.all(found.map(async (worker) => [`thread ${worker.id}: ${worker.title}`, ...(await stackOf(worker)), ''])),
  );
  return `${[...lines, ...workers.flat()].join('\n')}\nthreads\n${formatThreads(nativeThreads())}`;
}

const seconds = (milliseconds: number): string => (milliseconds / 1000).toFixed(1);

/** Kinds that process._getActiveHandles() does not show: timers, requests to the thread pool, workers' ports. */
function activeRequests(): string[] {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${kind}`);
}

function activeHandles(): string[] {
  const list = (process as unknown as { _getActiveHandles?(): object[] })._getActiveHandles?.() ?? [];
  return list.map(describeHandle).sort();
}

/** One line about a socket, server, child or whatever else keeps the event loop alive. */
export function describeHandle(handle: object): string {
  const kind = handle.constructor?.name ?? 'Object';
  const { pid, spawnfile } = handle as ChildProcess;
  if (spawnfile !== undefined) return `${kind} pid ${pid} ${spawnfile}`;
  if (kind === 'Server' || kind === 'Http2Server' || kind === 'Http2SecureServer') {
    const address = (handle as Server).address?.();
    return `${kind} ${typeof address === 'string' ? address.replace('\0', '@') : address ? `${address.address}:${address.port}` : ''}`.trimEnd();
  }
  const socket = handle as Socket & { fd?: number; _handle?: { fd?: number } };
  if (typeof socket.bytesRead !== 'number') return kind;
  const peer = socket.remoteAddress ? ` ${socket.remoteAddress}:${socket.remotePort}` : '';
  return `${kind}${peer} fd ${socket.fd ?? socket._handle?.fd ?? '-'}, ${socket.bytesRead} bytes read, ${socket.bytesWritten} written`;
}

/** The stack of a thread, a line for each frame, or why there is none. The thread is stopped for the moment that it is read. */
export async function stackOf(worker: InspectedWorker): Promise<string[]> {
  const scripts = new Map<string, string>();
  worker.on('Debugger.scriptParsed', (params) => {
    const { scriptId, url } = params as { scriptId: string; url: string };
    scripts.set(scriptId, url);
  });
  const paused = new Promise<CallFrame[]>((resolve) => {
    worker.on('Debugger.paused', (params) => resolve((params as { callFrames: CallFrame[] }).callFrames));
  });
  try {
    await worker.call('Debugger.enable');
    await worker.call('Debugger.pause');
    // A worker at rest has no stack to stop at: then it stops at this, which has no name.
    worker.call('Runtime.evaluate', { expression: '0' }).catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const frames = await Promise.race([
      paused,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('does not stop')), 1000);
      }),
    ]).finally(() => clearTimeout(timer));
    await worker.call('Debugger.disable');
    const fileOf = ({ url, location }: CallFrame): string => url || scripts.get(location.scriptId) || '';
    // The evaluation itself may be on top of what it interrupted.
    if (frames[0] && frames[0].functionName === '' && fileOf(frames[0]) === '') frames.shift();
    if (frames.length === 0) return ['    at rest'];
    return frames.map((frame) => {
      const { lineNumber, columnNumber } = frame.location;
      return `    at ${frame.functionName || '<anonymous>'} (${fileOf(frame) || '?'}:${lineNumber + 1}:${columnNumber + 1})`;
    });
  } catch (error) {
    return [`    no stack: ${(error as Error).message} (it may wait in a system call: see the table of threads)`];
  }
}
