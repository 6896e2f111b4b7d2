import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { OutputName } from '../container-logs.ts';

/** A logger for those whose log nobody reads. */
export const quiet = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
} as unknown as Logger;

/** The text of line `n` of a stream that `numberedLines` writes. */
export function numberedLine(name: OutputName, n: number): string {
  const length = n % 499 === 0 ? 20_000 + (n % 20_000) : n % 120;
  return `${name[3]}${n} ${'abcdefghij'.repeat(Math.ceil(length / 10)).slice(0, length)}`;
}

/**
 * Reads logs, in the order in which they were written, as who puts parts of lines together does.
 * @returns how many lines each stream has
 * @throws AssertionError at a line that is torn, or is not the next of its stream
 */
export async function readNumbered(files: readonly string[]): Promise<Record<OutputName, number>> {
  const counts = { stdout: 0, stderr: 0 };
  const parts = { stdout: '', stderr: '' };
  let lastTime = '';
  for (const file of files) {
    for await (const line of createInterface({ input: createReadStream(file, 'latin1') })) {
      const found = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) (.*)$/.exec(line);
      assert.ok(found, `${file}: torn line after ${lastTime}: ${line.slice(0, 200)}`);
      const [, time = '', stream, tag, text = ''] = found;
      const name = stream as OutputName;
      lastTime = time;
      parts[name] += text;
      if (tag === 'P') continue;
      const expected = numberedLine(name, counts[name]);
      if (parts[name] !== expected)
        assert.fail(`${file} ${time} ${name}: "${parts[name].slice(0, 80)}" instead of "${expected.slice(0, 80)}"`);
      parts[name] = '';
      counts[name]++;
    }
  }
  assert.deepEqual(parts, { stdout: '', stderr: '' }, 'a line without its end');
  return counts;
}
