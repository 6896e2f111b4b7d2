// Loggers: programs that take a container's output, by their contract, when they fail, hang, or outlive a shim.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';

/** Says how it was called, is ready, and notes what comes. */
const note = `
{ echo "args $*"; env | grep ^CONTAINER_ | sort; ls /proc/self/fd | tr '\\n' ' '; echo; } > "$2"
echo x >&5
exec 5>&-
while read -r line <&4; do echo "err $line"; done >> "$2" &
while read -r line <&3; do echo "out $line"; done >> "$2"
wait
sleep 0.5
echo done >> "$2"
`;

describe('loggers', { skip }, () => {
  const temp = makeTempDir('loggers');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const image = 'x/busybox:1';
  const archive = path.join(temp.path, 'busybox.tar');
  const at = (name: string): string => path.join(temp.path, name);
  const script = (name: string, text: string): string => {
    writeFileSync(at(name), `#!/bin/sh\n${text}`);
    chmodSync(at(name), 0o755);
    return at(name);
  };
  const text = (name: string): string => (existsSync(at(name)) ? readFileSync(at(name), 'utf8') : '');

  before(async () => {
    await busyboxArchive(temp.path, image);
    script('note', note);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  const wanted = ctrClients().filter(({ name }) => name === 'our ctr' || name === 'ctr 2.3.4');
  for (const client of wanted) describe(client.name, { skip: client.missing ?? false }, () => clientTests(client));

  function clientTests(client: CtrClient): void {
    const namespace = client.own ? 'own' : 'theirs';
    const ctr = new CtrSession(client, daemon.address, namespace);

    for (const scheme of ['binary', 'binary-v2'])
      test(`${scheme}: arguments, environment, both streams, and all of it when the container is gone`, async () => {
        await ctr.ok('images', 'import', archive);
        const log = `log-${namespace}-${scheme}`;
        const uri = `${scheme}://${at('note')}?file=${at(log)}&file=again&flag`;
        const command = 'echo one; echo two >&2; echo three';
        await ctr.ok('run', '--rm', '--log-uri', uri, image, 'c1', 'sh', '-c', command);
        const lines = text(log).trim().split('\n');
        assert.equal(lines[0], `args file ${at(log)} flag `);
        assert.deepEqual(lines.slice(1, 3), ['CONTAINER_ID=c1', `CONTAINER_NAMESPACE=${namespace}`]);
        assert.match(lines[3]!, /^0 1 2 3 4 5 /, 'no other descriptors');
        assert.deepEqual(lines.slice(4, -1).sort(), ['err two', 'out one', 'out three']);
        assert.equal(lines.at(-1), 'done', 'the end was waited for');
      });

    test('a terminal’s output', {
      skip: client.own ? false : 'containerd’s ctr logs nothing of a terminal',
    }, async () => {
      const log = `tty-${namespace}`;
      const uri = `binary://${at('note')}?file=${at(log)}`;
      await ctr.onTerminal(
        '',
        'run',
        '-d',
        '-t',
        '--log-uri',
        uri,
        image,
        'tty',
        'sh',
        '-c',
        'tty; echo on a terminal',
      );
      await eventually('the terminal is logged', () => /out on a terminal/.test(text(log)) || undefined);
      assert.match(text(log), /out \/dev\/pts\/0/);
      await ctr.try('tasks', 'rm', '-f', 'tty');
      await ctr.ok('containers', 'rm', 'tty');
    });

    test('one that is not there, dies, or does not say that it is ready', async () => {
      const fails = async (uri: string, reason: RegExp): Promise<void> => {
        const { code, stderr } = await ctr.try('run', '--rm', '--log-uri', uri, image, 'bad', 'echo', 'hello');
        assert.equal(code, 1, stderr);
        assert.match(stderr, reason);
        assert.equal((await ctr.ok('tasks', 'ls', '-q')).trim(), '');
      };
      await fails(
        'binary:///no/such/program',
        /failed to start binary process: fork\/exec \/no\/such\/program: no such file/,
      );
      await fails('binary-v2:///bin/true', /logging binary did not call ready/);
      await fails('nothing:///bin/true', /unknown STDIO scheme nothing/);
      // With the older scheme an end is as good as a word, and the container writes to nobody.
      const { code } = await ctr.try(
        'run',
        '--rm',
        '--log-uri',
        'binary:///bin/true',
        image,
        'sad',
        'sh',
        '-c',
        'sleep 0.3; echo x',
      );
      assert.notEqual(code, 0, 'it was told');
    });
  }

  test('one that does not end is made to, and does not keep the container', async () => {
    const ctr = new CtrSession(wanted[0]!, daemon.address, 'hanging');
    await ctr.ok('images', 'import', archive);
    const hang = script('hang', `trap '' TERM; exec 5>&-; cat <&3 >/dev/null; while :; do sleep 1; done\n`);
    const started = Date.now();
    assert.equal(await ctr.ok('run', '--rm', '--log-uri', `binary://${hang}`, image, 'hangs', 'echo', 'hello'), '');
    assert.ok(Date.now() - started > 9000, 'it had time to end');
    await eventually(
      'the logger is gone',
      () => processesMentioning(hang).filter(({ command }) => command.includes('/bin/sh')).length === 0 || undefined,
    );
  });
  test('a logger and its container outlive a shim that is killed', async () => {
    const ctr = new CtrSession(wanted[0]!, daemon.address, 'killed');
    await ctr.ok('images', 'import', archive);
    const uri = `binary://${at('note')}?file=${at('killed')}`;
    const counting = 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done';
    await ctr.ok('run', '-d', '--log-uri', uri, image, 'c1', 'sh', '-c', counting);
    const lines = (): number => (text('killed').match(/out line/g) ?? []).length;
    await eventually('it logs', () => lines() > 3 || undefined);
    const shims = processesMentioning(daemon.directory).filter(({ command }) => command.startsWith('gantry-shim'));
    assert.ok(shims.length > 0);
    for (const { pid } of shims) process.kill(pid, 'SIGKILL');
    const then = lines();
    await eventually('it still logs', () => lines() > then + 5 || undefined);
    await eventually(
      'the next shim has it',
      async () => /c1 +\d+ +RUNNING/.test(await ctr.ok('tasks', 'ls')) || undefined,
    );
    await ctr.ok('tasks', 'kill', '-s', 'KILL', 'c1');
    await eventually('the log ends', () => text('killed').endsWith('done\n') || undefined);
    await ctr.try('tasks', 'rm', '-f', 'c1');
    await ctr.ok('containers', 'rm', 'c1');
  });
});
