import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { close, eventfd } from '@gantry/sys';
import { WaitLoop } from './wait-loop.ts';

const once = Buffer.from(BigUint64Array.of(1n).buffer);
const nothing = (): void => undefined;
let bell: number;
let loop: WaitLoop;
const opened: number[] = [];

/** A descriptor that can be read for ever. */
function flooding(): number {
  const fd = eventfd();
  opened.push(fd);
  writeSync(fd, once);
  return fd;
}

before(() => {
  bell = eventfd();
  opened.push(bell);
  loop = new WaitLoop(bell);
});
after(() => {
  loop.close();
  for (const fd of opened) close(fd);
});

test('those with a lot to do have one turn at a time, in order, and the others come before each', () => {
  const told: string[] = [];
  const watches = Array.from({ length: 20 }, (_, index) =>
    loop.watch(flooding(), () => {
      told.push(`busy ${index}`);
      return true;
    }),
  );
  // All of them are new, and nothing is known of them.
  loop.turn(nothing);
  const first = told.splice(0);
  assert.equal(new Set(first).size, 20);
  for (let turn = 0; turn < 20; turn++) loop.turn(nothing);
  assert.deepEqual(told.splice(0), first);

  const quiet = loop.watch(flooding(), () => {
    told.push('quiet');
    return false;
  });
  for (let turn = 0; turn < 3; turn++) loop.turn(nothing);
  assert.deepEqual(told.splice(0), ['quiet', first[0], 'quiet', first[1], 'quiet', first[2]]);
  for (const watch of [...watches, quiet]) watch.close();
});

test('one that is let go of in the turn of another is not called any more', () => {
  const told: string[] = [];
  const [one, other] = ['one', 'other'].map((name) =>
    loop.watch(flooding(), () => {
      told.push(name);
      one!.close();
      other!.close();
      return false;
    }),
  );
  let heard = 0;
  writeSync(bell, once);
  loop.turn(() => heard++);
  assert.equal(told.length, 1);
  assert.equal(heard, 1);
});
