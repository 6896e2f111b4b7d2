/** Makes small modules of WebAssembly for tests: functions by their instructions in bytes. */

export const op = {
  unreachable: 0x00,
  loop: 0x03,
  br: 0x0c,
  end: 0x0b,
  drop: 0x1a,
  call: 0x10,
  get: 0x20,
  i32: 0x41,
  i64: 0x42,
  grow: [0x40, 0x00],
  load8: [0x2d, 0x00, 0x00],
  add: 0x6a,
  extend: 0xad,
  shl64: 0x86,
  or64: 0x84,
  empty: 0x40,
} as const;

const kinds = { i32: 0x7f, i64: 0x7e } as const;
type Kind = keyof typeof kinds;

export interface TestFunction {
  parameters: Kind[];
  results: Kind[];
  /** Without the `end`. */
  code: readonly (number | readonly number[])[];
}

/** In LEB128, signed as constants have it. */
export function constant(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    const byte = rest & 0x7f;
    const done = (rest >> 7 === 0 && (byte & 0x40) === 0) || (rest >> 7 === -1 && (byte & 0x40) !== 0);
    bytes.push(done ? byte : byte | 0x80);
    if (done) return bytes;
  }
}

const count = (value: number): number[] =>
  value < 128 ? [value] : [(value & 0x7f) | 0x80, ...count(Math.floor(value / 128))];
const text = (value: string): number[] => [...count(value.length), ...Buffer.from(value)];
const list = (entries: readonly (readonly number[])[]): number[] => [...count(entries.length), ...entries.flat()];
const section = (id: number, body: readonly number[]): number[] => [id, ...count(body.length), ...body];

interface TestModule {
  imports?: Record<string, { module: string; parameters: Kind[]; results: Kind[] }>;
  /** Exported under their names; their numbers come after those of the imports. */
  functions: Record<string, TestFunction>;
  /** The memory section's entry: flags, then limits. */
  memory?: number[];
  data?: { at: number; bytes: Uint8Array };
}

export function assemble({ imports = {}, functions, memory = [0, 1], data }: TestModule): Uint8Array {
  const types = [...Object.values(imports), ...Object.values(functions)].map(({ parameters, results }) => [
    0x60,
    ...list(parameters.map((kind) => [kinds[kind]])),
    ...list(results.map((kind) => [kinds[kind]])),
  ]);
  const imported = Object.keys(imports).length;
  const bodies = Object.values(functions).map(({ code }) => {
    const body = [0, ...code.flat(), op.end];
    return [...count(body.length), ...body];
  });
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(types)),
    ...section(
      2,
      list(Object.entries(imports).map(([name, { module }], at) => [...text(module), ...text(name), 0, ...count(at)])),
    ),
    ...section(3, list(bodies.map((_, at) => count(imported + at)))),
    ...section(5, list([memory])),
    ...section(
      7,
      list([
        ...Object.keys(functions).map((name, at) => [...text(name), 0, ...count(imported + at)]),
        [...text('memory'), 2, 0],
      ]),
    ),
    ...section(10, list(bodies)),
    ...(data
      ? section(11, list([[0, op.i32, ...constant(data.at), op.end, ...count(data.bytes.length), ...data.bytes]]))
      : []),
  ]);
}

const answering: TestFunction = { parameters: ['i32', 'i32'], results: ['i64'], code: [op.i64, 0] };
const names = [
  'configure',
  'synchronize',
  'shutdown',
  'create_container',
  'update_container',
  'stop_container',
  'state_change',
];

/** A plugin that answers everything with an empty message, but for what is given. `malloc` gives out one place, at 4096. */
export function testPlugin(
  functions: Record<string, TestFunction> = {},
  more: Omit<TestModule, 'functions'> = {},
): Uint8Array {
  return assemble({
    ...more,
    functions: {
      plugin_api_version: { parameters: [], results: ['i64'], code: [op.i64, 1] },
      malloc: { parameters: ['i32'], results: ['i32'], code: [op.i32, ...constant(4096)] },
      free: { parameters: ['i32'], results: [], code: [] },
      ...Object.fromEntries(names.map((name) => [`plugin_${name}`, answering])),
      ...functions,
    },
  });
}

/** Answers with bytes of its memory. `size` is as the ABI has it: with 2 ** 31 added it is an error's text. */
export const answers = (at: number, size: number): TestFunction => ({
  parameters: ['i32', 'i32'],
  results: ['i64'],
  code: [op.i64, ...constant(at), op.i64, ...constant(32), op.shl64, op.i32, ...constant(size | 0), op.extend, op.or64],
});
