// The thread of one plugin in WebAssembly. It is ended from outside when the plugin does not come back.
import { readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { WasmCall, WasmReply, WasmWorkerData } from './wasm-messages.ts';
import { WasmModule } from './wasm-module.ts';

/** What a plugin may log in one call: the daemon's own thread writes it. */
const mostMessages = 200;
const longestMessage = 16 << 10;

const { file, maxPages } = workerData as WasmWorkerData;
const port = parentPort;
if (!port) throw new Error('not a worker');
const say = (reply: WasmReply): void => port.postMessage(reply);

let logged = 0;
function log(request: Uint8Array): void {
  if (++logged <= mostMessages && request.length <= longestMessage) say({ kind: 'log', request });
}

/** With what it wrote itself, as that says more. */
function reasonOf(error: unknown, output = ''): string {
  const reason = error instanceof Error ? error.message : String(error);
  return output === '' ? reason : `${reason}: ${output}`;
}

function load(): WasmModule | undefined {
  try {
    return new WasmModule(readFileSync(file), maxPages, log);
  } catch (error) {
    say({ kind: 'failed', reason: reasonOf(error) });
    return undefined;
  }
}

const module = load();
if (module) {
  say({ kind: 'loaded' });
  port.on('message', ({ id, name, request }: WasmCall) => {
    logged = 0;
    try {
      say({ ...module.call(name, request), id });
    } catch (error) {
      say({ kind: 'trap', id, reason: reasonOf(error, module.output) });
      port.close();
    }
  });
}
