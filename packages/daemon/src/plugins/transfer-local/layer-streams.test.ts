import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, packAny } from '@gantry/api';
import { LayerStreamSchema, SnapshotSchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import { withTempMount } from '@gantry/mount';
import { chainIds, digestOf, MediaType } from '@gantry/oci';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { contextOf, type RequestContext } from '../../core/request-context.ts';
import type { TransferProgress } from '../../core/transfer/transferrer.ts';
import { createDaemon } from '../../server/daemon.ts';
import { ByteStream } from './testing-byte-stream.ts';
import { daemonOptions, listing, tar } from './testing-daemon.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: snapshots are mounted and files get owners';

type Fields<S> = Omit<Exclude<S, { $typeName: string }>, '$typeName'>;
type LayerFields = Fields<MessageInitShape<typeof LayerStreamSchema>>;
type SnapshotFields = Fields<MessageInitShape<typeof SnapshotSchema>>;

const bottom = tar([{ path: 'etc/' }, { path: 'etc/gone', text: 'gone' }, { path: 'etc/kept', text: 'kept' }]);
const top = tar([{ path: 'etc/' }, { path: 'etc/.wh.gone' }, { path: 'etc/new', text: 'x'.repeat(3 << 20), uid: 7 }]);
const [bottomId = '', topId = ''] = chainIds([digestOf(bottom), digestOf(top)]);

describe('layers from and to streams', { skip }, () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-layer-streams-'));
  let daemon: Awaited<ReturnType<typeof createDaemon>>;
  // What is made stays for as long as the caller's lease.
  const ctx = contextOf('default', 'mine');
  let streams = 0;

  before(async () => {
    daemon = await createDaemon(daemonOptions(directory, 'd', 4));
    await daemon.start();
    await store().leases.create(contextOf('default'), { id: 'mine', labels: {} });
  });
  after(async () => {
    await daemon.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const store = () => daemon.get(PluginTypes.Metadata, 'bolt');
  const transfer = () => daemon.get(PluginTypes.Transfer, 'local');

  function open(bytes?: Buffer): { stream: ByteStream; name: string } {
    const stream = new ByteStream(bytes);
    stream.isSender = bytes !== undefined;
    const name = `s${++streams}`;
    daemon.get(PluginTypes.Streaming, 'manager').register(ctx, name, stream);
    return { stream, name };
  }

  async function unpack(bytes: Buffer, to: SnapshotFields, fields: LayerFields = {}, caller: RequestContext = ctx) {
    const { stream, name } = open(bytes);
    const events: TransferProgress[] = [];
    const source = packAny(LayerStreamSchema, { stream: name, ...fields });
    const options = { progress: (event: TransferProgress) => void events.push(event) };
    try {
      await transfer().transfer(caller, source, packAny(SnapshotSchema, to), options);
    } finally {
      assert.ok(stream.isClosed);
    }
    return events;
  }

  async function diff(from: SnapshotFields, fields: LayerFields = {}) {
    const { stream, name } = open();
    const events: TransferProgress[] = [];
    const destination = packAny(LayerStreamSchema, { stream: name, ...fields });
    const options = { progress: (event: TransferProgress) => void events.push(event) };
    await transfer().transfer(ctx, packAny(SnapshotSchema, from), destination, options);
    assert.ok(stream.isClosed);
    return { bytes: Buffer.concat(stream.received), events };
  }

  async function snapshotNames(): Promise<string[]> {
    const names: string[] = [];
    for await (const info of store().snapshotters.get(ctx, '').list(ctx)) names.push(`${info.kind} ${info.name}`);
    return names.sort();
  }

  test('layers become snapshots, whatever they are packed with', async () => {
    const events = await unpack(gzipSync(bottom), {});
    const told = events.find(({ event }) => event === 'unpacked');
    assert.equal(told?.name, bottomId);
    assert.equal(told?.descriptor?.mediaType, MediaType.OciLayerGzip);
    assert.equal(told?.descriptor?.digest, digestOf(gzipSync(bottom)));
    assert.deepEqual(told?.descriptor?.annotations, { 'containerd.io/uncompressed': digestOf(bottom) });

    const packed = zstdCompressSync(top);
    await unpack(
      packed,
      { parent: bottomId, diffId: digestOf(top) },
      { digest: digestOf(packed), size: BigInt(packed.length) },
    );
    await unpack(top, { parent: bottomId, key: 'named', labels: { a: 'b' } }, { mediaType: MediaType.OciLayer });
    assert.deepEqual(await snapshotNames(), [bottomId, topId, 'named'].map((name) => `committed ${name}`).sort());

    const snapshots = store().snapshotters.get(ctx, '');
    assert.equal((await snapshots.stat(ctx, 'named')).labels.a, 'b');
    const content = async (name: string): Promise<string[]> => {
      const mounts = await snapshots.view(ctx, `${name}-look`, name);
      try {
        return await withTempMount(mounts, directory, async (root) => listing(root));
      } finally {
        await snapshots.remove(ctx, `${name}-look`);
      }
    };
    const files = await content(topId);
    assert.deepEqual(
      files.map((line) => line.split(' ')[0]),
      ['etc', 'etc/kept', 'etc/new'],
    );
    assert.match(files[2] ?? '', / 7 /);
    assert.deepEqual(await content('named'), files);
  });

  test('a snapshot that is there is found before a byte is read', async () => {
    const events = await unpack(Buffer.from('no layer at all'), { parent: bottomId, diffId: digestOf(top) });
    assert.deepEqual(
      events.filter(({ event }) => event === 'unpacked'),
      [{ event: 'unpacked', name: topId }],
    );
    await assert.rejects(unpack(top, { key: 'named' }), { code: Code.AlreadyExists });
  });

  test('a layer that is not what it should be leaves nothing', async () => {
    const before = await snapshotNames();
    const wrong = `sha256:${'0'.repeat(64)}`;
    const cases: [SnapshotFields, LayerFields, Buffer, RegExp | { code: Code }][] = [
      [{ diffId: wrong }, {}, bottom, /wrong diff id/],
      [{}, { digest: wrong }, bottom, { code: Code.FailedPrecondition }],
      [{}, { size: 10n }, bottom, { code: Code.FailedPrecondition }],
      [{}, { size: 1n << 40n }, bottom, { code: Code.FailedPrecondition }],
      [{}, { digest: 'sha256:../..' }, bottom, { code: Code.InvalidArgument }],
      [{ parent: 'nowhere', key: 'x' }, {}, bottom, { code: Code.NotFound }],
      [{ parent: 'named' }, {}, bottom, { code: Code.InvalidArgument }],
      [{ snapshotter: 'none' }, {}, bottom, { code: Code.InvalidArgument }],
      [{}, {}, gzipSync(bottom).subarray(0, 50), /./],
      [{}, { mediaType: 'application/vnd.unknown' }, bottom, { code: Code.Unimplemented }],
    ];
    for (const [to, fields, bytes, expected] of cases) {
      await assert.rejects(unpack(bytes, to, fields, contextOf('default')), expected as RegExp);
    }
    assert.deepEqual(await snapshotNames(), before);
    assert.deepEqual(await store().content.listStatuses(ctx), []);
    assert.deepEqual(
      (await store().leases.list(ctx)).map(({ id }) => id),
      ['mine'],
    );
  });

  test('a layer that the store has is not sent again', async () => {
    const packed = gzipSync(bottom);
    const { stream, name } = open(Buffer.from('what comes is not looked at'));
    const source = packAny(LayerStreamSchema, { stream: name, digest: digestOf(packed) });
    await transfer().transfer(ctx, source, packAny(SnapshotSchema, { key: 'again' }));
    assert.ok(stream.isClosed);
    assert.ok((await snapshotNames()).includes('committed again'));
  });

  test('what a snapshot adds comes as a layer that gives the same files again', async () => {
    const { bytes, events } = await diff({ key: topId }, { labels: { x: 'y' } });
    const told = events.find(({ event }) => event === 'compared');
    assert.equal(told?.descriptor?.digest, digestOf(bytes));
    assert.equal(told?.descriptor?.size, bytes.length);
    assert.equal(told?.descriptor?.mediaType, MediaType.OciLayerGzip);
    const diffId = digestOf(gunzipSync(bytes));
    assert.deepEqual(told?.descriptor?.annotations, { 'containerd.io/uncompressed': diffId });
    assert.equal((await store().content.info(ctx, digestOf(bytes))).labels.x, 'y');
    await unpack(bytes, { parent: bottomId, diffId, key: 'copy' });
    const same = await diff({ key: 'copy' }, { mediaType: MediaType.OciLayer });
    assert.equal(digestOf(same.bytes), diffId);
  });

  test('active snapshots, other parents, and fixed times', async () => {
    const snapshots = store().snapshotters.get(ctx, '');
    await snapshots.prepare(ctx, 'work', topId);
    const epoch = { seconds: 12n, nanos: 0 };
    const nothing = await diff({ key: 'work' }, { mediaType: MediaType.OciLayer });
    const all = await diff({ key: topId, parent: bottomId }, { mediaType: MediaType.OciLayer, sourceDateEpoch: epoch });
    assert.equal(nothing.bytes.length, 1024);
    assert.ok(all.bytes.length > 3 << 20);
    await assert.rejects(diff({ key: 'nowhere' }), { code: Code.NotFound });
    await assert.rejects(diff({ key: topId }, { mediaType: 'text/plain' }), { code: Code.Unimplemented });
    assert.ok(!(await snapshotNames()).some((name) => name.startsWith('view')));
  });

  test('one that is given up ends, though its client keeps the stream open', async () => {
    const before = await snapshotNames();
    const { stream, name } = open(Buffer.alloc(0));
    stream.receive = () => new Promise(() => undefined);
    const giveUp = new AbortController();
    const caller = { ...contextOf('default'), signal: giveUp.signal };
    const source = packAny(LayerStreamSchema, { stream: name });
    const unpacking = transfer().transfer(caller, source, packAny(SnapshotSchema, { key: 'never' }));
    setImmediate(() => giveUp.abort(new Error('enough')));
    await assert.rejects(unpacking, /enough/);
    assert.deepEqual(await snapshotNames(), before);
    assert.deepEqual(await store().content.listStatuses(ctx), []);
  });
});
