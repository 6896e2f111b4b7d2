import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger } from '../../core/log/log-writer.ts';
import { type LiveEvent, LiveFeed, type LiveSource } from './live-feed.ts';

const log = createLogger({ write: () => undefined });

function lab() {
  const reads = { always: 0, seldom: 0 };
  const listeners = new Set<(topic: string, event: LiveEvent) => void>();
  const sources: LiveSource[] = [
    { name: 'always', always: true, read: () => ++reads.always },
    { name: 'seldom', stale: (topic) => topic.startsWith('/images/'), read: () => ({ read: ++reads.seldom }) },
    {
      name: 'broken',
      always: true,
      read: () => {
        throw new Error('cannot');
      },
    },
  ];
  const feed = new LiveFeed(
    {
      sources,
      listen: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    5,
    log,
  );
  const publish = (topic: string): void => {
    for (const listener of listeners) listener(topic, { at: 1, namespace: 'a', topic, detail: {} });
  };
  const look = (ready = () => true) => {
    const got: string[] = [];
    const leave = feed.join({ send: (name, json) => void got.push(`${name} ${json}`), ready, end: () => undefined });
    return { got, leave };
  };
  return { feed, reads, listeners, publish, look };
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > end) assert.fail('never');
    await sleep(1);
  }
}

test('reads only while somebody looks', async () => {
  const { feed, reads, listeners, look } = lab();
  assert.deepEqual([reads.always, listeners.size], [0, 0]);
  const first = look();
  const second = look();
  await until(() => reads.always > 3);
  first.leave();
  second.leave();
  assert.equal(feed.viewers, 0);
  assert.equal(listeners.size, 0);
  await sleep(20);
  const then = reads.always;
  await sleep(50);
  assert.equal(reads.always, then);
});

test('sends what has changed, and reads lists again after events alone', async () => {
  const { reads, publish, look } = lab();
  const { got, leave } = look();
  await until(() => reads.always > 5);
  assert.equal(reads.seldom, 1);
  assert.equal(got.filter((one) => one.startsWith('seldom')).length, 1);
  publish('/containers/create');
  publish('/images/create');
  await until(() => got.includes('seldom {"read":2}'));
  assert.ok(got.some((one) => one.startsWith('events ') && one.includes('/containers/create')));
  assert.ok(!got.some((one) => one.startsWith('broken')));
  // Who comes later is sent everything.
  const late = look();
  await until(() => late.got.some((one) => one === 'seldom {"read":2}'));
  late.leave();
  leave();
});

test('a viewer that does not keep up is sent nothing until it does', async () => {
  const { reads, look } = lab();
  let ready = false;
  const { got, leave } = look(() => ready);
  await until(() => reads.always > 3);
  assert.equal(got.length, 0);
  ready = true;
  await until(() => got.some((one) => one.startsWith('seldom')));
  leave();
});
