import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { lastRuntimeError, lookPath, runRuntime, runtimeStatus } from './oci-runtime.ts';
import { loggerCommand } from './stdio/logger-io.ts';

const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-runtime-'));
after(() => rmSync(directory, { recursive: true }));
const logFile = path.join(directory, 'log.json');

function runtime(body: string) {
  const binary = path.join(directory, 'fake');
  writeFileSync(binary, `#!/bin/sh\n${body}\n`);
  chmodSync(binary, 0o755);
  return { binary, root: path.join(directory, 'root'), systemdCgroup: true };
}

test('the last error of the log is what the client is told', async () => {
  writeFileSync(
    logFile,
    '{"level":"error","msg":"first"}\n{"level":"warning","msg":"noise"}\n{"level":"error","msg":" the reason\\n"}\n',
  );
  assert.equal(lastRuntimeError(logFile, 'other'), 'the reason');
  await assert.rejects(runRuntime(runtime('exit 3'), ['create'], { logFile }), (error) => {
    const status = runtimeStatus(error, 'OCI runtime create failed');
    return hasCode(status, Code.Unknown) && status.message === 'OCI runtime create failed: the reason';
  });
  rmSync(logFile);
});

test('a runtime that is not there, in containerd’s words', async () => {
  await assert.rejects(
    runRuntime({ binary: 'nope-runtime', root: directory, systemdCgroup: false }, ['create'], { logFile }),
    new RegExp(
      `^RuntimeError: unable to retrieve OCI runtime error \\(open ${logFile}: no such file or directory\\): exec: "nope-runtime": executable file not found in \\$PATH$`,
    ),
  );
});

test('arguments, and output when asked for', async () => {
  const printed = await runRuntime(runtime('echo "$@"'), ['ps', 'x'], { logFile, capture: true });
  assert.equal(printed, `--root ${directory}/root --log ${logFile} --log-format json --systemd-cgroup ps x\n`);
});

test('a signal that ended the runtime is said', async () => {
  writeFileSync(logFile, '');
  await assert.rejects(
    runRuntime(runtime('kill -9 $$'), ['start'], { logFile }),
    /fake did not terminate successfully: signal: 9/,
  );
});

test('lookPath finds programs as execvp does', () => {
  assert.ok(lookPath('sh')?.endsWith('/sh'));
  assert.equal(lookPath('/bin/sh'), '/bin/sh');
  assert.equal(lookPath(directory), undefined);
});

test('the program and arguments of a logger', () => {
  assert.deepEqual(loggerCommand('binary:///usr/bin/log?_X=/var/lib&id=a%20b&id=c&flag'), {
    file: '/usr/bin/log',
    args: ['_X', '/var/lib', 'id', 'a b', 'flag', ''],
  });
});
