import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, stat } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Snapshotter } from './snapshotter.ts';

/** How the crash test gets at an implementation. */
export interface SnapshotterToKill {
  /** URL of a module that exports `openForTest(root): Promise<Snapshotter>`. */
  module: string;
  /** A directory that it may have its roots in; deleting it is the caller's. */
  directory: string;
  /** How many snapshots of their own there are on disk; those that only show another's do not count. */
  onDisk(root: string): Promise<number>;
  /** Whether a view of a committed snapshot has something of its own on disk. */
  viewsOnDisk: boolean;
  /** How often it is killed. Default 5. */
  rounds?: number;
}

/** Prepares, commits and removes without end; prints `+name` or `-name` once a change was answered. */
const worker = (module: string) => `
  import { openForTest } from ${JSON.stringify(module)};
  const [root, round] = process.argv.slice(1);
  const snapshotter = await openForTest(root);
  const say = (text) => process.stdout.write(text + '\\n');
  await Promise.all(['a', 'b', 'c'].map(async (name) => {
    for (let i = 0, parent = ''; ; i++) {
      const key = name + round + '.' + i;
      await snapshotter.prepare(key, parent);
      await snapshotter.commit('done-' + key, key);
      say('+done-' + key);
      await snapshotter.view('view-' + key, 'done-' + key);
      say('+view-' + key);
      if (i % 2) {
        say('?view-' + key);
        await snapshotter.remove('view-' + key);
        say('-view-' + key);
      }
      if (i % 5 === 0) await snapshotter.cleanup?.();
      parent = i % 3 ? 'done-' + key : '';
    }
  }));
`;

/** Kills a process that works on snapshots, several times: no answered snapshot is lost, nothing is left after `cleanup`. */
export async function killSnapshotter({
  module,
  directory,
  onDisk,
  viewsOnDisk,
  rounds = 5,
}: SnapshotterToKill): Promise<void> {
  const root = await mkdtemp(path.join(directory, 'crash-'));
  const { openForTest } = (await import(module)) as { openForTest(root: string): Promise<Snapshotter> };
  const known = new Map<string, string>();
  for (let round = 0; round < rounds; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', worker(module), root, String(round)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const lines = createInterface(child.stdout);
    const started = new Promise((resolve) => lines.once('line', resolve));
    lines.on('line', (line) => known.set(line.slice(1), line[0]!));
    await Promise.race([started, ended]);
    await sleep(30 + round * 23);
    child.kill('SIGKILL');
    await ended;

    const snapshotter = await openForTest(root);
    const listed = new Map<string, { kind: string; parent: string }>();
    for await (const info of snapshotter.list()) {
      listed.set(info.name, info);
      const [mount] = await snapshotter.mounts(info.name);
      // What it shows is there: by itself, or as the uppermost directory of an overlay.
      const layers = mount!.options.map((option) => /^(?:upper|lower)dir=([^:]+)/.exec(option)?.[1]);
      await stat(layers.find((layer) => layer !== undefined) ?? mount!.source);
    }
    // '?': being removed when killed, so both is right.
    for (const [name, state] of known) if (state !== '?') assert.equal(listed.has(name), state === '+', name);
    await snapshotter.cleanup?.();
    const own = [...listed.values()].filter(({ kind }) => viewsOnDisk || kind !== 'view');
    assert.equal(await onDisk(root), own.length);
    // One that was cut off in its commit can be committed.
    for (const [name, { kind }] of listed) if (kind === 'active') await snapshotter.commit(`late-${name}`, name);
    await snapshotter.close();
  }
  assert.ok(known.size > 5, `only ${known.size} changes were answered`);
}
