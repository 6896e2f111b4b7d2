import { invalidArgument } from '@gantry/api';

/** In WebAssembly memory is counted in these, bytes. */
export const pageSize = 64 << 10;

const preambleLength = 8;
const memorySection = 5;
const hasMaximum = 1;

/** Whether a file begins as modules do. */
export function isWasm(head: Uint8Array): boolean {
  const preamble = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  return head.length >= preambleLength && preamble.every((byte, at) => head[at] === byte);
}

/**
 * The module with a limit to what its memory can grow to. An engine has one for all modules only, and hands memory out as it is asked for.
 * @throws InvalidArgument for one that begins with more, or is none
 */
export function boundMemory(module: Uint8Array, maxPages: number): Uint8Array {
  if (!isWasm(module)) throw invalidArgument('not a WebAssembly module');
  const parts: Uint8Array[] = [module.subarray(0, preambleLength)];
  let at = preambleLength;
  while (at < module.length) {
    const begin = at;
    const [size, body] = readNumber(module, at + 1);
    at = body + size;
    if (at > module.length) throw invalidArgument('a section of the WebAssembly module is cut off');
    if (module[begin] !== memorySection) parts.push(module.subarray(begin, at));
    else {
      const bounded = boundSection(module.subarray(body, at), maxPages);
      parts.push(Uint8Array.from([memorySection, ...numberBytes(bounded.length), ...bounded]));
    }
  }
  return Buffer.concat(parts);
}

function boundSection(section: Uint8Array, maxPages: number): number[] {
  let [count, at] = readNumber(section, 0);
  const bounded = numberBytes(count);
  for (; count > 0; count--) {
    const flags = section[at];
    if (flags === undefined || flags > hasMaximum) throw invalidArgument('its memory is shared, or of 64 bits');
    let minimum: number;
    let maximum = maxPages;
    [minimum, at] = readNumber(section, at + 1);
    if (flags === hasMaximum) [maximum, at] = readNumber(section, at);
    if (minimum > maxPages) {
      throw invalidArgument(
        `it needs ${minimum * pageSize} bytes of memory; ${maxPages * pageSize} is the most there is`,
      );
    }
    bounded.push(hasMaximum, ...numberBytes(minimum), ...numberBytes(Math.min(maximum, maxPages)));
  }
  return bounded;
}

/** A whole number in LEB128, and where it ends. */
function readNumber(bytes: Uint8Array, begin: number): [value: number, end: number] {
  let value = 0;
  for (let at = begin, factor = 1; at < begin + 5; at++, factor *= 128) {
    const byte = bytes[at];
    if (byte === undefined) break;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return [value, at + 1];
  }
  throw invalidArgument('a number in the WebAssembly module is cut off');
}

function numberBytes(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
}
