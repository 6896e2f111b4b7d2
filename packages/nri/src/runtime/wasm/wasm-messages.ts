/** What a thread is told at its start. */
export interface WasmWorkerData {
  file: string;
  /** How much memory the module may have. */
  maxPages: number;
}

export interface WasmCall {
  id: number;
  /** The function that the module exports for it. */
  name: string;
  request: Uint8Array;
}

/** What a thread says: first whether the module could be loaded, then answers by the numbers of calls, and what the module logs. */
export type WasmReply =
  | { kind: 'loaded' }
  | { kind: 'failed'; reason: string }
  | { kind: 'answer'; id: number; bytes: Uint8Array }
  /** The plugin's own error. */
  | { kind: 'refusal'; id: number; reason: string }
  /** It has no such function. */
  | { kind: 'missing'; id: number }
  /** It has come to its end. */
  | { kind: 'trap'; id: number; reason: string }
  /** A LogRequest as the module wrote it. */
  | { kind: 'log'; request: Uint8Array };
