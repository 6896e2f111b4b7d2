import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, hasCode, isAny, now, packAny } from '@gantry/api';
import { ContainerCreateSchema } from '@gantry/api/gen/events/container_pb.js';
import { ImageUpdateSchema } from '@gantry/api/gen/events/image_pb.js';
import { TaskExitSchema } from '@gantry/api/gen/events/task_pb.js';
import { Exchange } from './event-exchange.ts';

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const image = packAny(ImageUpdateSchema, { name: 'img', labels: { 'a.b': 'c' } });

test('subscribers get what matches, in order, from the call on, until they stop', async () => {
  const exchange = new Exchange();
  exchange.publish('ns', '/images/update', image);
  const stop = new AbortController();
  const all = exchange.subscribe([], stop.signal);
  const filters = [
    'topic~=^/tasks/,namespace==ns',
    'event.labels."a.b"==c',
    'event.runtime.name==runc',
    'topic==/other',
  ];
  const some = exchange.subscribe(filters, stop.signal);
  const exit = packAny(TaskExitSchema, { containerId: 'c', pid: 7, exitStatus: 1 });
  exchange.publish('ns', '/tasks/exit', exit);
  exchange.publish('other', '/tasks/exit', exit);
  exchange.publishMessage('ns', '/images/update', ImageUpdateSchema, { name: 'img', labels: { 'a.b': 'c' } });
  exchange.publishMessage('ns', '/images/update', ImageUpdateSchema, { name: 'img', labels: { 'a.b': 'd' } });
  exchange.publishMessage('ns', '/containers/create', ContainerCreateSchema, { id: 'c', runtime: { name: 'runc' } });
  exchange.publish('ns', '/unknown/type', { ...image, typeUrl: 'who.knows' });
  stop.abort();
  const topics = async (events: typeof all) =>
    (await collect(events)).map(({ namespace, topic }) => `${namespace} ${topic}`);
  assert.deepEqual(await topics(some), ['ns /tasks/exit', 'ns /images/update', 'ns /containers/create']);
  assert.deepEqual((await topics(all)).length, 6);
});

test('numbers and nested fields can be asked for', async () => {
  const exchange = new Exchange();
  const stop = new AbortController();
  const events = exchange.subscribe(['event.pid==7', 'event.container_id==d'], stop.signal);
  for (const [containerId, pid] of [
    ['c', 7],
    ['d', 8],
    ['e', 9],
  ] as const) {
    exchange.publishMessage('ns', '/tasks/exit', TaskExitSchema, { containerId, pid });
  }
  stop.abort();
  assert.equal((await collect(events)).length, 2);
});

test('forwarded envelopes stay as they are', async () => {
  const exchange = new Exchange();
  const got: unknown[] = [];
  const off = exchange.listen((envelope) => got.push(envelope));
  const envelope = { timestamp: now(), namespace: 'ns', topic: '/tasks/exit', event: image };
  exchange.forward(envelope);
  off();
  exchange.forward(envelope);
  assert.deepEqual(got, [envelope]);
  assert.ok(isAny(image, ImageUpdateSchema));
});

test('bad topics, namespaces and filters are refused', () => {
  const exchange = new Exchange();
  const invalid = (error: unknown) => hasCode(error, Code.InvalidArgument);
  for (const topic of ['', 'a', '/', '/a b', '/a//b']) {
    assert.throws(() => exchange.publish('ns', topic, image), invalid, topic);
  }
  assert.throws(() => exchange.publish('BAD!', '/a', image), invalid);
  assert.throws(() => exchange.forward({ timestamp: now(), namespace: '', topic: '/a', event: image }), invalid);
  assert.throws(() => exchange.subscribe(['topic=='], new AbortController().signal), invalid);
});

test('for a while after the start, subscribers get what happened while no daemon was there', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exchange = new Exchange();
  const before = { seconds: now().seconds - 5n, nanos: 0 };
  exchange.forward({ timestamp: before, namespace: 'ns', topic: '/tasks/exit', event: image });
  exchange.forward({ timestamp: now(), namespace: 'ns', topic: '/tasks/start', event: image });
  const got = async (filters: string[]) => {
    const stop = new AbortController();
    const events = exchange.subscribe(filters, stop.signal);
    stop.abort();
    return (await collect(events)).map(({ topic }) => topic);
  };
  assert.deepEqual(await got([]), ['/tasks/exit']);
  assert.deepEqual(await got(['namespace==other']), []);
  t.mock.timers.tick(30_000);
  assert.deepEqual(await got([]), []);
});
