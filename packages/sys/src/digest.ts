/**
 * Digests worked out on threads of the pool: no thread of JavaScript's own, no copy of the bytes. By the OpenSSL that Node carries
 * and shows to its addons.
 */
import { createHash, type Hash } from 'node:crypto';
import koffi from 'koffi';

type Pointer = object | null;
type Update = ((context: Pointer, bytes: Uint8Array, length: number) => number) & {
  async(context: Pointer, bytes: Uint8Array, length: number, done: (error: Error | null, result: number) => void): void;
};

interface Library {
  create(): Pointer;
  free(context: Pointer): void;
  algorithm(name: string): Pointer;
  init(context: Pointer, algorithm: Pointer, engine: null): number;
  update: Update;
  copy(to: Pointer, from: Pointer): number;
  final(context: Pointer, out: Buffer, length: null): number;
}

let library: Library | null | undefined;

function load(): Library | null {
  if (library !== undefined) return library;
  try {
    const loaded = koffi.load(null);
    library = {
      create: loaded.func('void *EVP_MD_CTX_new()'),
      free: loaded.func('void EVP_MD_CTX_free(void *)'),
      algorithm: loaded.func('void *EVP_get_digestbyname(const char *)'),
      init: loaded.func('int EVP_DigestInit_ex(void *, void *, void *)'),
      update: loaded.func('int EVP_DigestUpdate(void *, const void *, size_t)') as unknown as Update,
      copy: loaded.func('int EVP_MD_CTX_copy_ex(void *, void *)'),
      final: loaded.func('int EVP_DigestFinal_ex(void *, void *, void *)'),
    };
  } catch {
    // A Node that hides its OpenSSL.
    library = null;
  }
  return library;
}

/** A running digest. One `update` at a time, and no `hex` during one. */
export interface PoolDigest {
  /** The bytes must not change until it settles. */
  update(bytes: Uint8Array): Promise<void>;
  /** In hex, of all bytes so far. */
  hex(): string;
  /** Lets go of it, at the end of an `update` under way. */
  close(): void;
}

/** `algorithm`: sha256, sha384 or sha512. Where OpenSSL cannot be reached, the digest holds up the calling thread. */
export function poolDigest(algorithm: string): PoolDigest {
  const loaded = load();
  return loaded ? new OpenSslDigest(loaded, algorithm) : new BlockingDigest(algorithm);
}

class OpenSslDigest implements PoolDigest {
  readonly #library: Library;
  readonly #size: number;
  #context: Pointer;
  #busy = false;
  #closed = false;

  constructor(loaded: Library, algorithm: string) {
    this.#library = loaded;
    this.#size = createHash(algorithm).digest().length;
    const method = loaded.algorithm(algorithm);
    this.#context = loaded.create();
    if (!method || !this.#context || loaded.init(this.#context, method, null) !== 1) {
      this.close();
      throw new Error(`OpenSSL has no ${algorithm}`);
    }
  }

  async update(bytes: Uint8Array): Promise<void> {
    this.#mustBeFree();
    if (bytes.length === 0) return;
    this.#busy = true;
    try {
      const result = await new Promise<number>((resolve, reject) => {
        this.#library.update.async(this.#context, bytes, bytes.length, (error, value) =>
          error ? reject(error) : resolve(value),
        );
      });
      if (result !== 1) throw new Error('EVP_DigestUpdate failed');
    } finally {
      this.#busy = false;
      if (this.#closed) this.#free();
    }
  }

  hex(): string {
    this.#mustBeFree();
    const { create, free, copy, final } = this.#library;
    const fork = create();
    try {
      const out = Buffer.alloc(64);
      if (!fork || copy(fork, this.#context) !== 1 || final(fork, out, null) !== 1) {
        throw new Error('EVP_DigestFinal_ex failed');
      }
      return out.toString('hex', 0, this.#size);
    } finally {
      free(fork);
    }
  }

  close(): void {
    this.#closed = true;
    if (!this.#busy) this.#free();
  }

  #free(): void {
    this.#library.free(this.#context);
    this.#context = null;
  }

  // What is behind the pointer is not to be touched by two threads, nor when it is gone.
  #mustBeFree(): void {
    if (this.#busy || this.#closed) throw new Error(`digest is ${this.#closed ? 'closed' : 'busy'}`);
  }
}

class BlockingDigest implements PoolDigest {
  readonly #hash: Hash;

  constructor(algorithm: string) {
    this.#hash = createHash(algorithm);
  }

  async update(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
  }

  hex(): string {
    return this.#hash.copy().digest('hex');
  }

  close(): void {}
}
