/** Entry of the archive workers: runs jobs by name for a `WorkerPool`. */
import { parentPort } from 'node:worker_threads';
import { applyLayer } from './apply-layer.ts';
import { diffLayer } from './diff-layer.ts';
import { erofsFromDirectory } from './erofs/directory-to-erofs.ts';
import { erofsLayer } from './erofs/erofs-layer.ts';
import { nativeLayer } from './erofs/native-layer.ts';
import { hashFile } from './hash-file.ts';
import { type FromWorker, type JobContext, type JobFunction, type ToWorker, toFailure } from './job.ts';
import { packTree } from './tree-copy/pack-tree.ts';
import { unpackTree } from './tree-copy/unpack-tree.ts';

const jobs: Record<string, JobFunction> = {
  'apply-layer': applyLayer,
  'diff-layer': diffLayer,
  'erofs-from-directory': erofsFromDirectory,
  'erofs-layer': erofsLayer,
  'hash-file': hashFile,
  'native-layer': nativeLayer,
  'pack-tree': packTree,
  'unpack-tree': unpackTree,
};

interface Running {
  controller: AbortController;
  messages: unknown[];
  wake: (() => void) | undefined;
}

const port = parentPort;
if (!port) throw new Error('archive-worker is started by a WorkerPool');
const running = new Map<number, Running>();
const send = (message: FromWorker) => port.postMessage(message);

port.on('message', (message: ToWorker) => {
  switch (message.kind) {
    case 'start':
      void start(message.id, message.job, message.params);
      break;
    case 'message': {
      const job = running.get(message.id);
      job?.messages.push(message.message);
      job?.wake?.();
      break;
    }
    case 'cancel': {
      const job = running.get(message.id);
      job?.controller.abort();
      job?.wake?.();
    }
  }
});

async function start(id: number, name: string, params: unknown): Promise<void> {
  const state: Running = { controller: new AbortController(), messages: [], wake: undefined };
  running.set(id, state);
  const { signal } = state.controller;
  const context: JobContext = {
    signal,
    progress: (progress) => send({ kind: 'progress', id, progress }),
    async nextMessage() {
      for (;;) {
        signal.throwIfAborted();
        if (state.messages.length > 0) return state.messages.shift();
        await new Promise<void>((resolve) => {
          state.wake = resolve;
        });
        state.wake = undefined;
      }
    },
  };
  try {
    const job = jobs[name];
    if (!job) throw new Error(`archive worker: no job ${name}`);
    const result = await job(params as never, context);
    send({ kind: 'result', id, result });
  } catch (error) {
    send({ kind: 'error', id, error: toFailure(error) });
  } finally {
    running.delete(id);
    // Whatever of the job still waits for something stops waiting.
    state.controller.abort();
    state.wake?.();
  }
}
