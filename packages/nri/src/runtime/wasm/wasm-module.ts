import { failedPrecondition } from '@gantry/api';
import { boundMemory } from './bound-memory.ts';
import { refusal, wasi, wasiModule } from './wasi.ts';
import { type HostFunction, type WasmMemory, WebAssembly } from './web-assembly.ts';

/** Without these it is no plugin. Those that tell of what has happened may be left to `plugin_state_change`, as before NRI 0.12. */
const required = [
  'plugin_configure',
  'plugin_synchronize',
  'plugin_shutdown',
  'plugin_create_container',
  'plugin_update_container',
  'plugin_stop_container',
  'plugin_state_change',
  'malloc',
  'free',
];
const apiVersion = 1n;
const errorMark = 1 << 31;
/** As by a socket. */
const largestAnswer = 4 << 20;
const shownOutput = 2048;

type Exported = (...parameters: number[]) => unknown;

/** What a call comes to. */
export type WasmOutcome =
  | { kind: 'answer'; bytes: Uint8Array }
  | { kind: 'refusal'; reason: string }
  | { kind: 'missing' };

/**
 * A plugin in WebAssembly as NRI has them: a function for each call, which is given a message in the module's memory and answers where
 * there the answer is; `malloc` and `free` for the place. It can log, and has no other way out.
 */
export class WasmModule {
  readonly #exports: Record<string, unknown>;
  readonly #memory: WasmMemory;
  #output = Buffer.alloc(0);

  /** @param log gets a message as it was written @throws FailedPrecondition, or what the module throws when it begins */
  constructor(bytes: Uint8Array, maxPages: number, log: (request: Uint8Array) => void) {
    const module = new WebAssembly.Module(boundMemory(bytes, maxPages));
    const system = wasi(
      () => this.#memory.buffer,
      (output) => {
        this.#output = Buffer.concat([this.#output, output.subarray(0, shownOutput - this.#output.length)]);
      },
    );
    const imports: Record<string, Record<string, HostFunction>> = {
      [wasiModule]: {},
      env: {
        log: (at: number, length: number) => {
          log(this.#read(at, length));
          return 0n;
        },
      },
    };
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      if (from === wasiModule) imports[wasiModule]![name] = system[name] ?? refusal(name);
    }
    this.#exports = new WebAssembly.Instance(module, imports).exports;
    const { memory, _initialize: initialize } = this.#exports;
    if (!(memory instanceof WebAssembly.Memory)) throw failedPrecondition('memory is not exported');
    this.#memory = memory as WasmMemory;
    if (typeof initialize === 'function') initialize();
    for (const name of ['plugin_api_version', ...required]) {
      if (!this.#exported(name)) throw failedPrecondition(`${name} is not exported`);
    }
    const version = this.#exported('plugin_api_version')!();
    if (version !== apiVersion) {
      throw failedPrecondition(`API version mismatch, host: ${apiVersion}, plugin: ${version}`);
    }
  }

  /** The first of what it wrote to standard output and error in the last call: why it ended may stand there. */
  get output(): string {
    return this.#output.toString().trim();
  }

  /** @throws what the module throws when it ends; it is not to be called again then */
  call(name: string, request: Uint8Array): WasmOutcome {
    const call = this.#exported(name);
    if (!call) return { kind: 'missing' };
    this.#output = Buffer.alloc(0);
    const at = request.length > 0 ? this.#write(request) : 0;
    const result = call(at, request.length);
    if (typeof result !== 'bigint') throw failedPrecondition(`${name} does not answer with 64 bits`);
    const answerAt = Number(BigInt.asUintN(32, result >> 32n));
    const size = Number(BigInt.asUintN(32, result));
    const refused = (size & errorMark) !== 0;
    const bytes = this.#read(answerAt, refused ? size - 2 ** 31 : size);
    const free = this.#exported('free')!;
    if (answerAt !== 0) free(answerAt);
    if (at !== 0) free(at);
    return refused ? { kind: 'refusal', reason: Buffer.from(bytes).toString() } : { kind: 'answer', bytes };
  }

  #exported(name: string): Exported | undefined {
    const value = this.#exports[name];
    return typeof value === 'function' ? (value as Exported) : undefined;
  }

  #write(bytes: Uint8Array): number {
    const at = Number(this.#exported('malloc')!(bytes.length)) >>> 0;
    new Uint8Array(this.#memory.buffer, at, bytes.length).set(bytes);
    return at;
  }

  /** A copy. */
  #read(at: number, length: number): Uint8Array {
    if (length >>> 0 > largestAnswer) throw failedPrecondition(`a message of ${length >>> 0} bytes is too long`);
    return new Uint8Array(this.#memory.buffer, at >>> 0, length >>> 0).slice();
  }
}
