// The thread in which an administrator's module runs. Whatever it imports from files is checked as it was itself.
import { registerHooks } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import { readTrusted, trustedProgram } from './trusted-file.ts';

/** What a thread is told once, and then for each call. */
export interface ModuleWorkerData {
  file: string;
}

export interface ModuleCall {
  method: string;
  argument: unknown;
}

export type ModuleReply = { value: unknown } | { error: string };

const { file } = workerData as ModuleWorkerData;
const port = parentPort;
if (!port) throw new Error('not a worker');
const main = pathToFileURL(file).href;

registerHooks({
  load(url, context, next) {
    if (!url.startsWith('file:')) return next(url, context);
    const from = fileURLToPath(url);
    const format = /\.m?ts$/.test(from) ? 'module-typescript' : url === main ? 'module' : context.format;
    if (format === 'module' || format === 'module-typescript') {
      return { format, source: readTrusted(from), shortCircuit: true };
    }
    trustedProgram(from);
    return next(url, context);
  },
});

const loading = import(main) as Promise<Record<string, unknown>>;
loading.catch(() => undefined);

async function answer({ method, argument }: ModuleCall): Promise<ModuleReply> {
  try {
    const module = await loading;
    const whole = module.default as Record<string, unknown> | undefined;
    const fn = module[method] ?? whole?.[method];
    if (typeof fn !== 'function') return { error: `it exports no function ${method}` };
    return { value: await (fn as (argument: unknown) => unknown).call(whole, argument) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

port.on('message', async (call: ModuleCall) => {
  const reply = await answer(call);
  try {
    port.postMessage(reply);
  } catch (error) {
    port.postMessage({ error: `its answer cannot be passed on: ${(error as Error).message}` } satisfies ModuleReply);
  }
});
