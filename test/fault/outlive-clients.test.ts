import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { eventually } from '../lib/processes.ts';
import { Terminal } from '../lib/terminal.ts';
import { exitCodesKept, OutliveLab, unknownExit } from './outlive-lab.ts';

/** A person at a terminal, with containerd's own clients, while the shim or the daemon is killed. */
const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('clients whose shim or daemon is killed', { skip }, () => {
  const lab = new OutliveLab();
  before(() => lab.open());
  after(() => lab.close());

  const rootfs = () => path.join(lab.directory, 'rootfs');

  async function killShim(): Promise<void> {
    // The last client's goes when it is not needed any more.
    await eventually('one shim', () => (lab.shims().length === 1 ? true : undefined), 60_000);
    const before = lab.shims().map(({ pid }) => pid);
    await lab.kill('shim');
    await eventually('another shim', () => {
      const now = lab.shims();
      return now.length > 0 && now.every(({ pid }) => !before.includes(pid)) ? true : undefined;
    });
  }

  for (const [index, client] of ctrClients()
    .filter(({ name }) => !name.includes('--local'))
    .entries()) {
    describe(client.name, { skip: client.missing ?? false }, () => {
      const ctr = new CtrSession(client, lab.daemon.address, `c${index}`);
      const onTerminal = (...args: string[]) => new Terminal(client.file, ctr.arguments(args));

      test('run -t goes on with its shell, its window and its exit code', async () => {
        const shell = onTerminal('run', '--rm', '-t', '--rootfs', rootfs(), 'shell', '/bin/sh');
        try {
          await shell.expect('/ #');
          shell.type('echo before-$((6*7))\n');
          await shell.expect('before-42');
          await killShim();
          shell.type('echo after-$((6*8))\n');
          await shell.expect('after-48');
          shell.resize({ rows: 31, cols: 93 });
          await eventually('the new size', async () => {
            shell.type('stty size\n');
            return /(\d+ \d+)\r/.exec(await shell.expect(/\d+ \d+\r/))?.[1] === '31 93' ? true : undefined;
          });
          shell.type('exit 7\n');
          assert.equal(await shell.end(), 7);
        } finally {
          shell.kill();
        }
      });

      test('what runs in the background on a terminal is attached to after the daemon’s end, and the shim’s', async () => {
        const { code } = await ctr.onTerminal('', 'run', '-d', '-t', '--rootfs', rootfs(), 'back', '/bin/sh');
        assert.equal(code, 0);
        const before = await ctr.ok('tasks', 'ls');
        await lab.kill('daemon');
        await lab.start();
        assert.equal(await ctr.ok('tasks', 'ls'), before);
        await killShim();
        const shell = onTerminal('tasks', 'attach', 'back');
        try {
          shell.type('echo attached-$((6*7))\n');
          await shell.expect('attached-42');
          // The daemon that came after the first has been given everything again.
          await killShim();
          shell.type('echo again-$((6*8))\n');
          await shell.expect('again-48');
          shell.type('exit 3\n');
          assert.equal(await shell.end(), 3);
        } finally {
          shell.kill();
        }
        await ctr.try('tasks', 'rm', 'back');
        await ctr.ok('containers', 'rm', 'back');
      });

      test('an exec and an input go on', async () => {
        await ctr.ok('run', '-d', '--rootfs', rootfs(), 'host', '/bin/sleep', '1000');
        const script =
          'i=0; while [ $i -lt 40 ]; do echo line-$i; i=$((i+1)); sleep 0.05; done; read x; echo "got $x"; exit 4';
        const exec = onTerminal('tasks', 'exec', '-t', '--exec-id', 'e1', 'host', '/bin/sh', '-c', script);
        try {
          await exec.expect('line-5');
          await killShim();
          const shown = await exec.expect('line-39');
          const lines = [...shown.matchAll(/line-(\d+)/g)].map(([, number]) => Number(number));
          assert.deepEqual(
            lines,
            Array.from({ length: lines.length }, (_, at) => 40 - lines.length + at),
          );
          exec.type('word\n');
          await exec.expect('got word');
          assert.equal(await exec.end(), 4);
        } finally {
          exec.kill();
        }
        await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'host');
        await ctr.try('tasks', 'rm', '-f', 'host');
        await ctr.ok('containers', 'rm', 'host');
      });
    });
  }

  // A terminal writes to a FIFO or a logger.
  for (const [kind, terminal] of [
    ['file', false],
    ['binary', false],
    ['binary', true],
  ] as const) {
    test(`a ${kind} that takes the output of ${terminal ? 'a terminal' : 'a process'} has all of it`, async () => {
      const id = `log-${kind}-${terminal}`;
      const file = path.join(lab.directory, `${id}.txt`);
      const logger = path.join(lab.directory, 'logger');
      writeFileSync(logger, '#!/bin/sh\nexec 5>&-\ncat <&3 > "$2"\n', { mode: 0o755 });
      const script = 'i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.03; done; exit 6';
      const stdout = kind === 'file' ? `file://${file}` : `binary://${logger}?out=${file}`;
      await lab.create(id, script, { stdout, terminal });
      const { tasks, containers } = lab.connection;
      const exited = tasks.wait({ containerId: id });
      await tasks.start({ containerId: id });
      await eventually('some output', () => (lines(file).length > 5 ? true : undefined));
      await killShim();
      const { exitStatus } = await exited;
      assert.ok(exitStatus === 6 || (!exitCodesKept && exitStatus === unknownExit), `exit status ${exitStatus}`);
      await tasks.delete({ containerId: id });
      await containers.delete({ id });
      const expected = Array.from({ length: 60 }, (_, number) => String(number));
      await eventually('all output', () => (lines(file).length >= 60 ? true : undefined));
      assert.deepEqual(lines(file), expected);
    });
  }

  test('leaves nothing behind', () => lab.leavesNothing());
});

function lines(file: string): string[] {
  return existsSync(file) ? readFileSync(file, 'utf8').split(/\r?\n/).slice(0, -1) : [];
}
