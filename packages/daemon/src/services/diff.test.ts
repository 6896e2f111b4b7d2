import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, hasCode, invalidArgument, unimplemented } from '@gantry/api';
import type { CallContext } from '@gantry/rpc';
import type { Differ } from '../core/diff/differ.ts';
import { contextOf } from '../core/request-context.ts';
import { DifferChain, diffService } from './diff.ts';

const descriptor = { mediaType: 'm', digest: 'sha256:x', size: 3 };
const call = { namespace: 'test', lease: 'l', signal: new AbortController().signal } as unknown as CallContext;

/** Remembers what it was asked; answers `result` or throws it. */
function recorder(result: unknown) {
  const asked: unknown[][] = [];
  const answer = async (...args: unknown[]) => {
    asked.push(args);
    if (result instanceof Error) throw result;
    return result;
  };
  return { asked, differ: { apply: answer, diff: answer } as unknown as Differ };
}

test('the first differ that knows how decides; other failures are not passed on', async () => {
  const ctx = contextOf('test');
  const [cannot, broken, can] = [recorder(unimplemented('no')), recorder(invalidArgument('bad')), recorder(descriptor)];
  assert.equal(await new DifferChain([cannot.differ, can.differ]).apply(ctx, descriptor, []), descriptor);
  assert.equal(cannot.asked.length, 1);
  await assert.rejects(new DifferChain([broken.differ, can.differ]).diff(ctx, [], []), /bad/);
  assert.equal(can.asked.length, 1);
  for (const chain of [new DifferChain([cannot.differ]), new DifferChain([])]) {
    await assert.rejects(chain.apply(ctx, descriptor, []), (error) => hasCode(error, Code.Unimplemented));
  }
  await new DifferChain([can.differ], true).apply(ctx, descriptor, []);
  assert.deepEqual(can.asked.at(-1)?.[3], { syncFs: true });
});

test('the service decodes requests and encodes answers', async () => {
  const { asked, differ } = recorder(descriptor);
  const service = diffService(differ);
  const mount = { type: 'bind', source: '/a', target: '', options: ['ro'] };
  const wire = { mediaType: 'm', digest: 'sha256:x', size: 3n, annotations: { a: 'b' } };
  const applied = await service.apply!({ diff: wire, mounts: [mount], payloads: {}, syncFs: true } as never, call);
  assert.equal(applied.applied?.size, 3n);
  assert.deepEqual(asked[0]?.slice(1), [
    { mediaType: 'm', digest: 'sha256:x', size: 3, annotations: { a: 'b' } },
    [{ type: 'bind', source: '/a', options: ['ro'] }],
    { processorPayloads: {}, syncFs: true },
  ]);
  const request = { left: [], right: [{ ...mount, target: 't' }], mediaType: 'm', ref: '', labels: { k: 'v' } };
  await service.diff!({ ...request, sourceDateEpoch: { seconds: 5n, nanos: 0 } } as never, call);
  assert.deepEqual(asked[1]?.slice(1), [
    [],
    [{ type: 'bind', source: '/a', options: ['ro'], target: 't' }],
    { mediaType: 'm', labels: { k: 'v' }, sourceDateEpoch: 5n },
  ]);
  await assert.rejects(
    async () => await service.apply!({ mounts: [], payloads: {} } as never, call),
    (error) => hasCode(error, Code.InvalidArgument),
  );
});
