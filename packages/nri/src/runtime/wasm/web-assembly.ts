/** What is used here of the engine's WebAssembly: TypeScript has it among a browser's things only. */
interface WebAssemblyApi {
  Module: {
    new (bytes: Uint8Array): object;
    imports(module: object): { module: string; name: string; kind: string }[];
  };
  /** Exports by name: functions, a memory, others. */
  Instance: new (
    module: object,
    imports: Record<string, Record<string, HostFunction>>,
  ) => { exports: Record<string, unknown> };
  Memory: new (descriptor: { initial: number }) => WasmMemory;
}

/** Numbers of 32 bits are numbers, those of 64 bits bigints. */
// biome-ignore lint/suspicious/noExplicitAny: parameters are as the module declares them
export type HostFunction = (...parameters: any[]) => number | bigint;

export interface WasmMemory {
  /** Another one after the memory has grown. */
  readonly buffer: ArrayBuffer;
}

export const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssemblyApi };
