import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib';
import { headerDictionary } from './dictionary.ts';

/** Names are in small letters, values as they came. */
export type Headers = ReadonlyMap<string, string>;

/** What a header block may become when it is inflated; more is an attack. */
const largestBlock = 64 << 10;

/** Both directions' headers of one connection: each block is compressed with what was sent before it, so all go through here in order. */
export class HeaderCodec {
  readonly #deflate = createDeflate({ dictionary: headerDictionary });
  readonly #inflate = createInflate({ dictionary: headerDictionary });
  #written: Promise<unknown> = Promise.resolve();

  encode(headers: Headers): Promise<Buffer> {
    const parts: Buffer[] = [uint32(headers.size)];
    for (const [name, value] of headers) {
      for (const text of [name, value]) parts.push(uint32(Buffer.byteLength(text)), Buffer.from(text));
    }
    const block = this.#written.then(() => pass(this.#deflate, Buffer.concat(parts)));
    this.#written = block.catch(() => undefined);
    return block;
  }

  /** Blocks must be given one after the other. @throws Error for what is no header block */
  async decode(block: Buffer): Promise<Headers> {
    const bytes = await pass(this.#inflate, block);
    let at = 0;
    const number = (): number => {
      if (at + 4 > bytes.length) throw new Error('a SPDY header block is cut off');
      at += 4;
      return bytes.readUInt32BE(at - 4);
    };
    const string = (): string => {
      const length = number();
      if (length > bytes.length - at) throw new Error('a SPDY header block is cut off');
      at += length;
      return bytes.toString('utf8', at - length, at);
    };
    const headers = new Map<string, string>();
    for (let left = number(); left > 0; left--) {
      const name = string().toLowerCase();
      headers.set(name, string());
    }
    return headers;
  }

  close(): void {
    this.#deflate.close();
    this.#inflate.close();
  }
}

/** One piece through a (de)compressor that goes on afterwards. */
function pass(stream: Deflate | Inflate, input: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const output: Buffer[] = [];
    let size = 0;
    const done = (error?: Error | null): void => {
      stream.off('data', take).off('error', done);
      if (error) reject(error);
      else resolve(Buffer.concat(output));
    };
    const take = (piece: Buffer): void => {
      output.push(piece);
      size += piece.length;
      if (size > largestBlock) stream.destroy(new Error('a SPDY header block is too large'));
    };
    stream.on('data', take).on('error', done);
    stream.write(input);
    stream.flush(constants.Z_SYNC_FLUSH, () => done());
  });
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
