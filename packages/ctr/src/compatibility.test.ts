import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { Command } from './command.ts';
import { root } from './root.ts';

const page = readFileSync(path.resolve(import.meta.dirname, '../../../docs/compatibility.md'), 'utf8');

async function leaves(command: Command, words: readonly string[]): Promise<string[]> {
  const whole = command.load ? await command.load() : command;
  if (!whole.commands) return [words.join(' ')];
  return (await Promise.all(whole.commands.map((sub) => leaves(sub, [...words, sub.name])))).flat();
}

test('docs/compatibility.md lists every command, and none that is not there', async () => {
  const listed = [...page.matchAll(/^\| `(ctr [a-z -]+)` \| (?:done|not yet) \|/gm)].map((match) => match[1]!).sort();
  assert.deepEqual(listed, (await leaves(root, ['ctr'])).sort());
});
