// Every command and flag of containerd's ctr is known, has a usage and an example, and help for it can be printed.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import type { Command } from './command.ts';
import { root } from './root.ts';

async function commands(command: Command, at: string[] = [command.name]): Promise<[string[], Command][]> {
  const loaded = command.load ? await command.load() : command;
  const found: [string[], Command][] = [[at, loaded]];
  for (const sub of loaded.commands ?? []) found.push(...(await commands(sub, [...at, sub.name])));
  return found;
}

test('each command has a usage and an example that names it', async () => {
  for (const [at, command] of await commands(root)) {
    const name = at.join(' ');
    assert.ok(command.usage, `${name} has no usage`);
    assert.ok(command.example?.startsWith('ctr '), `${name} has no example`);
    assert.ok(command.run ?? command.commands, `${name} does nothing`);
    const flags = (command.flags ?? []).flatMap((flag) => [flag.name, ...(flag.aliases ?? [])]);
    assert.equal(new Set(flags).size, flags.length, `${name} has a flag twice`);
    for (const flag of command.flags ?? []) assert.ok(flag.usage, `${name} --${flag.name} has no usage`);
  }
});

test('the groups and verbs of containerd', async () => {
  const names = (await commands(root)).map(([at]) => at.slice(1).join(' '));
  for (const expected of [
    'plugins list',
    'plugins inspect-runtime',
    'containers restore',
    'content prune references',
    'images convert',
    'namespaces remove',
    'pprof trace',
    'snapshots unpack',
    'tasks checkpoint',
    'sandboxes run',
    'shim pprof heap',
  ])
    assert.ok(names.includes(expected), `there is no ctr ${expected}`);
});

const main = path.join(import.meta.dirname, 'main.ts');

test('help needs no daemon; mistakes end with 1 and say where to look', () => {
  const help = execFileSync(process.execPath, [main, 'images', 'pull', '--help'], { encoding: 'utf8' });
  assert.match(help, /ctr images pull - fetch an image/);
  assert.match(help, /EXAMPLE:\n {3}ctr images pull/);
  const wrong = spawnSync(process.execPath, [main, 'i', 'pull', '--nope'], { encoding: 'utf8' });
  assert.equal(wrong.status, 1);
  assert.equal(wrong.stderr, "ctr: flag provided but not defined: -nope\nSee 'ctr images pull --help'.\n");
  const gone = spawnSync(process.execPath, [main, '-a', '/nonexistent/x.sock', 'i', 'ls'], { encoding: 'utf8' });
  assert.equal(gone.status, 1);
  assert.match(gone.stderr, /^ctr: cannot access socket \/nonexistent\/x.sock/);
});
