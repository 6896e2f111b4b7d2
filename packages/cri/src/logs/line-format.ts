import { now } from '@gantry/api';
import type { OutputName } from './container-logs.ts';

const newline = 10;
/** Up to this length a line is found and copied faster byte by byte than by calls. */
const shortLine = 24;
const wordBytes = 8;
const littleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
const tags = { F: 'F'.charCodeAt(0), P: 'P'.charCodeAt(0) } as const;
/** Where the fraction of a second is in `2026-01-01T00:00:00.000000000Z stdout F `, and the end of what never differs in a second. */
const fractionEnd = '2026-01-01T00:00:00.000000000'.length;
const secondEnd = '2026-01-01T00:00:00.'.length;
const nanosPerSecond = 1_000_000_000;

/**
 * Turns bytes into lines of CRI's log format: time, stream, `F` for a whole line or `P` for a part of one, text. Each line has a time of
 * its own, later than that of the line before, so that those who sort or compare by time see every line in its place.
 */
export class LineFormat {
  /** Bytes that a line is longer here than where it comes from, its end included. */
  readonly overhead: number;
  /** What the last call of `format` used of its input, and made of it. */
  consumed = 0;
  length = 0;
  /** Lines and parts of lines among it. */
  lines = 0;
  parts = 0;
  /** It ended where more input is needed, not more room. */
  unfinished = false;
  readonly #prefix: Buffer;
  /** The same memory as it is copied, because a few numbers are written faster than a call is made. No ASCII text is a NaN. */
  readonly #words: Float64Array;
  readonly #tag: number;
  readonly #clock: LineClock;

  constructor(stream: OutputName, clock: LineClock) {
    const prefix = `2026-01-01T00:00:00.000000000Z ${stream} F `;
    this.#words = new Float64Array(prefix.length / wordBytes);
    this.#prefix = Buffer.from(this.#words.buffer);
    this.#prefix.write(prefix, 'latin1');
    this.#tag = this.#prefix.length - 2;
    this.overhead = this.#prefix.length + 1;
    this.#clock = clock;
  }

  /**
   * Formats the lines in `input`, for as long as `output` has room for whole ones.
   * @param max bytes of text after which a line goes on in a further, partial one
   * @param end nothing comes after this input: what has no end of a line is told as a part of one
   */
  format(input: Buffer, output: Buffer, max: number, end: boolean): void {
    const { overhead } = this;
    const text = overhead - 1;
    const prefix = this.#prefix;
    const words = this.#words;
    const view = new DataView(output.buffer, output.byteOffset, output.length);
    let from = 0;
    let to = 0;
    let parts = 0;
    let lines = 0;
    let before = 0;
    this.unfinished = true;
    this.#clock.begin(prefix);
    while (from < input.length) {
      // Lines are mostly about as long as the one before them.
      const found = before <= shortLine ? endNear(input, from) : input.indexOf(newline, from);
      const until = found < 0 ? input.length : found;
      let take = until - from;
      let whole = found >= 0;
      before = take;
      if (take > max) {
        take = max;
        whole = false;
      } else if (!whole && !end) break;
      if (to + take + overhead > output.length) {
        this.unfinished = false;
        break;
      }
      prefix[this.#tag] = whole ? tags.F : tags.P;
      for (let at = 0; at < words.length; at++) view.setFloat64(to + at * wordBytes, words[at]!, littleEndian);
      to += text;
      if (take <= shortLine) for (let at = 0; at < take; at++) output[to + at] = input[from + at]!;
      // Makes no object, unlike the others that copy.
      else input.copy(output, to, from, from + take);
      to += take;
      output[to++] = newline;
      from += whole ? take + 1 : take;
      if (whole) lines++;
      else parts++;
      this.#clock.next(prefix);
    }
    this.consumed = from;
    this.length = to;
    this.lines = lines;
    this.parts = parts;
  }
}

/** Where the next end of a line is; -1 if there is none. */
function endNear(input: Buffer, from: number): number {
  const near = Math.min(input.length, from + shortLine + 1);
  for (let at = from; at < near; at++) if (input[at] === newline) return at;
  return near === input.length ? -1 : input.indexOf(newline, near);
}

/** The times of the lines of one log: each is later than the one before, and as close to the truth as that allows. */
export class LineClock {
  #seconds = 0;
  #nanos = 0;

  /** Puts the time of the next line into a prefix. */
  begin(prefix: Buffer): void {
    const time = now();
    const seconds = Number(time.seconds);
    if (seconds > this.#seconds || (seconds === this.#seconds && time.nanos > this.#nanos)) {
      this.#seconds = seconds;
      this.#nanos = time.nanos;
    }
    this.#write(prefix);
  }

  /** A nanosecond later. */
  next(prefix: Buffer): void {
    if (++this.#nanos === nanosPerSecond) {
      this.#seconds++;
      this.#nanos = 0;
      this.#write(prefix);
      return;
    }
    for (let at = fractionEnd - 1; at >= secondEnd; at--) {
      if (prefix[at]! < 57) {
        prefix[at]!++;
        return;
      }
      prefix[at] = 48;
    }
  }

  #write(prefix: Buffer): void {
    const second = new Date(this.#seconds * 1000).toISOString().slice(0, secondEnd);
    prefix.write(second, 'latin1');
    prefix.write(String(this.#nanos).padStart(9, '0'), secondEnd, 'latin1');
  }
}
