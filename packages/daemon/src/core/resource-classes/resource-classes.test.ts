import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import type { Logger } from '../log/logger.ts';
import { openResourceClasses } from './resource-classes.ts';

const root = mkdtempSync(path.join(tmpdir(), 'gantry-classes-'));
after(() => rmSync(root, { recursive: true }));
const put = (name: string, text: string): string => {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
};

/** Keeps what is logged. */
function listening() {
  const said: string[] = [];
  const note = (message: string, fields: Record<string, unknown> = {}): void => {
    said.push([message, ...Object.values(fields).map((field) => (field as Error)?.message ?? field)].join(' '));
  };
  const log = { debug: () => {}, info: () => {}, warn: note, error: note } as unknown as Logger;
  return { said, log };
}

const none = { blockio: '', rdt: '' };

test('without files nothing is enabled, and nobody is told', async () => {
  const { said, log } = listening();
  const classes = await openResourceClasses(none, log);
  assert.deepEqual([classes.blockio, classes.rdt, said], [undefined, undefined, []]);
});

test('classes of block I/O are read one by one', async () => {
  const { said, log } = listening();
  const blockio = put('blockio.yaml', 'Classes:\n  slow:\n    - Weight: 80\n  bad:\n    - Weight: 5\n');
  const classes = await openResourceClasses({ ...none, blockio }, log);
  assert.deepEqual([...(classes.blockio ?? [])], [['slow', { weight: 80 }]]);
  assert.match(said.join('\n'), /ignoring blockio class bad value of "Weight" \(5\) smaller than minimum \(10\)/);
});

test('a file that cannot be used leaves its classes off', async () => {
  const odd = put('odd.yaml', 'Sorts: {}\n');
  for (const [blockio, message] of [
    ['/nowhere/blockio.yaml', /blockio not enabled: failed to read config file "\/nowhere\/blockio.yaml": ENOENT/],
    [odd, /blockio not enabled: .*unknown field "Sorts"/],
  ] as const) {
    const { said, log } = listening();
    assert.equal((await openResourceClasses({ ...none, blockio }, log)).blockio, undefined);
    assert.match(said.join('\n'), message);
  }
  const { said, log } = listening();
  const mounts = put('mounts', 'proc /proc proc rw 0 0\n');
  const rdt = put('rdt.yaml', 'partitions: {}\n');
  assert.equal((await openResourceClasses({ ...none, rdt }, log, mounts)).rdt, undefined);
  assert.match(said.join('\n'), /RDT not enabled: failed to detect resctrl mount point: resctrl not found in/);
});

test('classes of RDT are groups that resctrl is given', async () => {
  const directory = path.join(root, 'resctrl');
  for (const [name, text] of [
    ['info/L3/cbm_mask', 'f'],
    ['info/L3/min_cbm_bits', '1'],
    ['schemata', 'L3:0=f'],
    ['tasks', '1'],
    ['gold/tasks', ''],
    ['gold/schemata', ''],
  ] as const) {
    put(`resctrl/${name}`, `${text}\n`);
  }
  const mounts = put('mounts', `resctrl ${directory} resctrl rw 0 0\n`);
  const rdt = put('rdt.yaml', 'partitions:\n  all:\n    l3Allocation: "50%"\n    classes:\n      gold:\n');
  const { said, log } = listening();
  const classes = (await openResourceClasses({ ...none, rdt }, log, mounts)).rdt ?? assert.fail(said.join('\n'));
  classes.check('gold', 'container');
  assert.equal(readFileSync(path.join(directory, 'gold/schemata'), 'utf8'), 'L3:0=3\n');
});
