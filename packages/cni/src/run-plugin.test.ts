import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { runPlugin } from './run-plugin.ts';

test('a plugin that is killed has failed when the programs that it called have ended', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-plugin-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const given = path.join(directory, 'given');
  // As `bridge`, which calls host-local for an address, and is killed before that has noted which.
  writeFileSync(
    path.join(directory, 'calls'),
    `#!/bin/sh\n(sleep 0.5; touch ${given}) </dev/null >/dev/null 2>&1 &\nkill -9 $$\n`,
    { mode: 0o755 },
  );
  const call = { command: 'ADD', containerId: `killed-${process.pid}`, directories: [directory] } as const;
  await assert.rejects(runPlugin('calls', {}, call), /netplugin failed with no error message: signal: killed/);
  assert.ok(existsSync(given));
});
