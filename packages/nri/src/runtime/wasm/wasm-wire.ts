import { open } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { fromBinary } from '@bufbuild/protobuf';
import {
  deadlineExceeded,
  failedPrecondition,
  type StatusError,
  unavailable,
  unimplemented,
  unknown,
} from '@gantry/api';
import { LogRequest_Level, LogRequestSchema } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { PluginWire } from '../plugin-wire.ts';
import { isWasm, pageSize } from './bound-memory.ts';
import type { WasmCall, WasmReply, WasmWorkerData } from './wasm-messages.ts';

/** What a plugin may have of memory, bytes: its own, and that of the thread's scripts. */
const mostMemory = 256 << 20;
const heapMegabytes = 64;

export type PluginLogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface WasmOptions {
  /** Milliseconds until it must be loaded. */
  loadTimeout: number;
  log: (level: PluginLogLevel, message: string) => void;
}

/** Whether a file is a module, by how it begins. */
export async function isWasmFile(file: string): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(8), length: 8, position: 0 });
    return isWasm(buffer.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}

/** Loads a plugin in WebAssembly, in a thread of its own. @throws FailedPrecondition if it is none, DeadlineExceeded */
export async function wasmWire(file: string, { loadTimeout, log }: WasmOptions): Promise<PluginWire> {
  const source = import.meta.url.endsWith('.ts') ? './wasm-worker.ts' : './wasm-worker.js';
  const workerData: WasmWorkerData = { file, maxPages: mostMemory / pageSize };
  const worker = new Worker(new URL(source, import.meta.url), {
    name: 'gantry-nri-wasm',
    workerData,
    execArgv: [],
    env: {},
    stdout: true,
    stderr: true,
    resourceLimits: { maxOldGenerationSizeMb: heapMegabytes, maxYoungGenerationSizeMb: 8 },
  });
  worker.unref();
  const loaded = Promise.withResolvers<void>();
  const waiting = new Map<number, PromiseWithResolvers<Uint8Array>>();
  const listeners: (() => void)[] = [];
  let ended: StatusError | undefined;
  const end = (reason: StatusError): void => {
    if (ended) return;
    ended = reason;
    void worker.terminate();
    loaded.reject(reason);
    for (const { reject } of waiting.values()) reject(reason);
    waiting.clear();
    for (const listener of listeners) listener();
  };
  worker.on('message', (reply: WasmReply) => {
    if (reply.kind === 'loaded') loaded.resolve();
    else if (reply.kind === 'failed') end(failedPrecondition(`failed to load WASM plugin: ${reply.reason}`));
    else if (reply.kind === 'log') logOf(reply.request, log);
    else {
      const call = waiting.get(reply.id);
      waiting.delete(reply.id);
      if (reply.kind === 'answer') call?.resolve(reply.bytes);
      else if (reply.kind === 'refusal') call?.reject(unknown(reply.reason));
      else if (reply.kind === 'missing') call?.reject(unimplemented('the WASM plugin has no such function'));
      else {
        call?.reject(unavailable(reply.reason));
        end(unavailable(reply.reason));
      }
    }
  });
  worker.on('error', (error: Error) => end(unavailable(error.message, error)));
  worker.on('exit', () => end(unavailable('the thread of the WASM plugin has ended')));
  const timer = setTimeout(() => end(deadlineExceeded('loading of the WASM plugin timed out')), loadTimeout);
  try {
    await loaded.promise;
  } finally {
    clearTimeout(timer);
  }
  let last = 0;
  return {
    registers: false,
    largestRequest: Number.POSITIVE_INFINITY,
    serve: () => undefined,
    onClose: (listener) => void (ended ? listener() : listeners.push(listener)),
    close: () => end(unavailable('the WASM plugin was ended')),
    transport: {
      unary: async (method, request, { timeoutMs }) => {
        if (ended) throw ended;
        const call: WasmCall = { id: ++last, name: functionOf(method.name), request };
        const answer = Promise.withResolvers<Uint8Array>();
        waiting.set(call.id, answer);
        const late = deadlineExceeded(`the WASM plugin did not answer ${method.name}`);
        const limit = timeoutMs === undefined ? undefined : setTimeout(() => answer.reject(late), timeoutMs);
        worker.postMessage(call);
        try {
          return await answer.promise;
        } finally {
          clearTimeout(limit);
          waiting.delete(call.id);
        }
      },
      stream: () => {
        throw unimplemented('no streams');
      },
      close: async () => end(unavailable('the WASM plugin was ended')),
    },
  };
}

/** `CreateContainer` is exported as `plugin_create_container`. */
const functionOf = (method: string): string =>
  `plugin${method.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;

const levels: Partial<Record<LogRequest_Level, PluginLogLevel>> = {
  [LogRequest_Level.INFO]: 'info',
  [LogRequest_Level.WARN]: 'warn',
  [LogRequest_Level.ERROR]: 'error',
};

function logOf(bytes: Uint8Array, log: WasmOptions['log']): void {
  try {
    const { level, msg } = fromBinary(LogRequestSchema, bytes);
    log(levels[level] ?? 'debug', msg);
  } catch {
    // Not a message. The plugin has only harmed itself.
  }
}
