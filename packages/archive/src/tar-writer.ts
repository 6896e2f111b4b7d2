/** Writes a tar of few entries to an async sink: for image archives. Byte for byte the same for the same entries. */
import { encodeTarHeader, tarEnd, tarPadding } from './tar-encode.ts';

export interface TarFileOptions {
  mode?: number;
  /** Seconds since 1970; default 0. */
  mtime?: number;
}

/** Entries in, bytes out through `sink`, which is awaited. */
export class TarWriter {
  readonly #sink: (chunk: Uint8Array) => Promise<void> | void;

  constructor(sink: (chunk: Uint8Array) => Promise<void> | void) {
    this.#sink = sink;
  }

  async directory(name: string, options: TarFileOptions = {}): Promise<void> {
    const path = `${byteString(name.replace(/\/+$/, ''))}/`;
    await this.#sink(encodeTarHeader({ type: '5', path, mode: options.mode ?? 0o755, mtime: options.mtime ?? 0 }));
  }

  async symlink(name: string, target: string, options: TarFileOptions = {}): Promise<void> {
    const { mtime = 0 } = options;
    const linkPath = byteString(target);
    await this.#sink(encodeTarHeader({ type: '2', path: byteString(name), linkPath, mode: 0o777, mtime }));
  }

  /** A file with its bytes. */
  async bytes(name: string, content: Uint8Array, options: TarFileOptions = {}): Promise<void> {
    await this.file(name, content.length, [content], options);
  }

  /** A file of `size` bytes that come from `content`. @throws if they are not exactly as many. */
  async file(
    name: string,
    size: number,
    content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: TarFileOptions = {},
  ): Promise<void> {
    const { mode = 0o644, mtime = 0 } = options;
    await this.#sink(encodeTarHeader({ type: '0', path: byteString(name), mode, mtime, size }));
    let written = 0;
    for await (const chunk of content) {
      written += chunk.length;
      if (written > size) throw new Error(`tar: ${name}: more than ${size} bytes`);
      await this.#sink(chunk);
    }
    if (written !== size) throw new Error(`tar: ${name}: ${written} bytes instead of ${size}`);
    const padding = tarPadding(size);
    if (padding > 0) await this.#sink(Buffer.alloc(padding));
  }

  /** Ends the archive. */
  async finish(): Promise<void> {
    await this.#sink(tarEnd());
  }
}

function byteString(text: string): string {
  return Buffer.from(text).toString('latin1');
}
