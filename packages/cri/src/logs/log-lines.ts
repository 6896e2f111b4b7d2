import { formatTime, now } from '@gantry/api';

const newline = 10;

/** Turns a stream of bytes into lines of CRI's log format: time, stream, `F` for a whole line or `P` for a part of one, text. */
export class LogLines {
  readonly #stream: string;
  readonly #max: number;
  #rest: Buffer[] = [];
  #length = 0;

  /** @param maxLineSize bytes of text after which a line is broken into parts; 0 or less: never */
  constructor(stream: string, maxLineSize: number) {
    this.#stream = stream;
    this.#max = maxLineSize > 0 ? maxLineSize : Number.POSITIVE_INFINITY;
  }

  /** The lines that these bytes complete. */
  add(bytes: Buffer): Buffer[] {
    const lines: Buffer[] = [];
    let at = 0;
    while (at < bytes.length) {
      const end = bytes.indexOf(newline, at);
      const room = this.#max - this.#length;
      const piece = bytes.subarray(at, end < 0 ? bytes.length : end);
      if (piece.length > room) {
        lines.push(this.#line('P', piece.subarray(0, room)));
        at += room;
        continue;
      }
      if (end < 0) {
        this.#rest.push(Buffer.from(piece));
        this.#length += piece.length;
        break;
      }
      lines.push(this.#line('F', piece));
      at = end + 1;
    }
    return lines;
  }

  /** What came after the last end of a line. */
  end(): Buffer[] {
    return this.#length === 0 ? [] : [this.#line('P', Buffer.alloc(0))];
  }

  #line(tag: 'F' | 'P', piece: Buffer): Buffer {
    const head = Buffer.from(`${formatTime(now())} ${this.#stream} ${tag} `, 'latin1');
    const line = Buffer.concat([head, ...this.#rest, piece, Buffer.from('\n')]);
    this.#rest = [];
    this.#length = 0;
    return line;
  }
}
