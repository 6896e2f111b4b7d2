/** The C library through koffi: each function is looked up when it is first called, so that loading the room costs nothing. */
import koffi from 'koffi';
import { SysError } from './error.ts';

/** A path for the kernel: Buffers carry names that are not UTF-8. */
export type Path = string | Buffer;

// biome-ignore lint/suspicious/noExplicitAny: arguments are described by the type list given to native()
type Arguments = any[];

/** A C function whose result is a number: -1 (with errno) on failure. */
export interface Native {
  (...args: Arguments): number;
  /** The same off the main thread: for calls that can wait. Throws SysError by itself. */
  wait(syscall: string, path: Path | undefined, ...args: Arguments): Promise<number>;
}

let library: ReturnType<typeof koffi.load> | undefined;

/** `native('mkdirat', ['int', 'ptr', 'uint'])`; types are koffi's, with `ptr` for a Buffer or null. */
export function native(name: string, types: string[], result = 'int'): Native {
  let bound: ReturnType<ReturnType<typeof koffi.load>['func']> | undefined;
  const bind = () => {
    library ??= koffi.load(null);
    bound = library.func(
      name,
      result,
      types.map((type) => (type === 'ptr' ? 'void *' : type)),
    );
    return bound;
  };
  const call = ((...args: Arguments) => (bound ?? bind())(...args) as number) as Native;
  call.wait = (syscall, path, ...args) =>
    inTurn(
      () =>
        new Promise((resolve, reject) => {
          const attempt = () =>
            (bound ?? bind()).async(...args, (failure: Error | null, value: number) => {
              if (failure) return reject(failure);
              if (value >= 0) return resolve(value);
              const errno = koffi.errno();
              if (errno === 4) return attempt();
              reject(sysError(syscall, errno, path));
            });
          attempt();
        }),
    );
  return call;
}

const strerror = { bound: undefined as ((errno: number) => string) | undefined };

/** koffi refuses more than 256 calls at a time; there are fewer threads for them anyway. */
const mostAtOnce = 64;
let underWay = 0;
const inLine: (() => void)[] = [];

async function inTurn<T>(call: () => Promise<T>): Promise<T> {
  if (underWay >= mostAtOnce) await new Promise<void>((resolve) => inLine.push(resolve));
  else underWay++;
  try {
    return await call();
  } finally {
    // Whoever is next takes the place over.
    const next = inLine.shift();
    if (next) next();
    else underWay--;
  }
}

/** What the C library calls this error, with a small first letter. */
export function reasonOf(errno: number): string {
  library ??= koffi.load(null);
  strerror.bound ??= library.func('strerror', 'str', ['int']) as (errno: number) => string;
  const text = strerror.bound(errno);
  return text.charAt(0).toLowerCase() + text.slice(1);
}

export function sysError(syscall: string, errno: number, path?: Path): SysError {
  return new SysError(syscall, errno, reasonOf(errno), path?.toString());
}

/** The error number the last call on this thread left. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Gives back a result that is not negative, and throws SysError for one that is. */
export function check(syscall: string, result: number, path?: Path): number {
  if (result >= 0) return result;
  throw sysError(syscall, koffi.errno(), path);
}

/** A NUL-terminated copy. A name that contains NUL is refused with EINVAL: the kernel would see a shorter one. */
export function cstring(text: Path): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  if (bytes.includes(0)) throw sysError('path', 22, text);
  const copy = Buffer.alloc(bytes.length + 1);
  bytes.copy(copy);
  return copy;
}

/** The address of a Buffer's bytes, for structures that hold pointers. The Buffer must outlive the call. */
export function addressOf(buffer: Buffer): bigint {
  return koffi.address(buffer) as bigint;
}

/** `char *[]` ending in NULL, with the Buffers it points into, to be kept until the call is over. */
export function cstringArray(list: readonly Path[]): { pointers: Buffer; keep: Buffer[] } {
  const keep = list.map(cstring);
  const pointers = Buffer.alloc((list.length + 1) * 8);
  keep.forEach((buffer, index) => {
    pointers.writeBigUInt64LE(addressOf(buffer), index * 8);
  });
  return { pointers, keep };
}

export const isArm64 = process.arch === 'arm64';
