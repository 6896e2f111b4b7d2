import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Content } from '@gantry/api/gen/services/content/v1/content_pb.js';
import { contentBackendContract } from '../../core/content/content-backend-contract.ts';
import type { ContentBackend, ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import { KeyedLock } from '../../core/content/keyed-lock.ts';
import { MetadataContentStore } from '../../core/content/metadata-content-store.ts';
import { Collector } from '../../core/gc/collector.ts';
import { TestingMetadata } from '../../core/metadata/testing-metadata.ts';
import { BackendAway } from '../../core/remote/backend-away.ts';
import { contextOf } from '../../core/request-context.ts';
import { contentService } from '../../services/content.ts';
import { LocalContent } from '../content-local/local-content.ts';
import { ProxyConnection } from './proxy-connection.ts';
import { ProxyContent } from './proxy-content.ts';
import { TestingPeer } from './testing-peer.ts';

/** A backend as a plugin's process serves it: without namespaces and labels. */
function flatStore(backend: () => ContentBackend): ContentStore {
  return {
    info: async (_, digest) => ({ ...(await backend().info(digest)), labels: {} }),
    update: () => Promise.reject(new Error('no labels are kept')),
    async *list() {
      for await (const info of backend().list()) yield { ...info, labels: {} };
    },
    delete: (_, digest) => backend().delete(digest),
    status: (_, ref) => backend().status(ref),
    listStatuses: () => backend().listStatuses(),
    // What a commit answers is less than the interface says, and all that the service looks at.
    writer: async (_, options) => (await backend().writer(options)) as unknown as ContentWriter,
    abort: (_, ref) => backend().abort(ref),
    reader: (_, digest) => backend().reader(digest),
  };
}

async function localPeer() {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-proxied-'));
  let backend = await LocalContent.open(root);
  const peer = await TestingPeer.open((grpc) => grpc.add(Content, contentService(flatStore(() => backend))));
  const connection = new ProxyConnection('away', peer.address);
  return {
    peer,
    proxy: new ProxyContent(connection),
    async restart() {
      await peer.stop();
      backend = await LocalContent.open(root);
      await peer.start();
    },
    async close() {
      await connection.close();
      await peer.close();
      await rm(root, { recursive: true });
    },
  };
}

contentBackendContract('proxy', async () => {
  const { proxy, restart, close } = await localPeer();
  return {
    backend: proxy,
    async reopen() {
      await restart();
      return proxy;
    },
    close,
  };
});

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

it('proxied content may be away: told at once, and a writer resumes when it is back', async () => {
  const { peer, proxy, restart, close } = await localPeer();
  const bytes = randomBytes(3 << 20);
  try {
    const writer = await proxy.writer({ ref: 'r', size: bytes.length });
    await writer.write(bytes.subarray(0, 2 << 20));
    await peer.stop();
    await assert.rejects(writer.write(bytes.subarray(2 << 20)), (error) => hasCode(error, Code.Unavailable));
    await writer.close();
    await assert.rejects(proxy.info(digestOf(bytes)), BackendAway);
    await restart();
    const again = await proxy.writer({ ref: 'r', size: bytes.length });
    assert.equal(again.status().offset, 2 << 20);
    await again.write(bytes.subarray(2 << 20));
    await again.commit({ size: bytes.length, expected: digestOf(bytes) });
    await using reader = await proxy.reader(digestOf(bytes));
    assert.deepEqual(Buffer.from(await reader.read(1 << 20, 1 << 20)), bytes.subarray(1 << 20, 2 << 20));
    assert.deepEqual(Buffer.from(await reader.read(0, bytes.length)), bytes);
  } finally {
    await close();
  }
});

it('readers that stand still hold up nobody', async () => {
  const { proxy, close } = await localPeer();
  const bytes = randomBytes(6 << 20);
  const readers = [];
  try {
    const writer = await proxy.writer({ ref: 'large' });
    await writer.write(bytes);
    const { digest } = await writer.commit();
    for (let i = 0; i < 10; i++) readers.push(await proxy.reader(digest));
    assert.equal((await proxy.info(digest)).size, bytes.length);
    for (const reader of readers) {
      assert.deepEqual(Buffer.from(await reader.read(5, 10)), bytes.subarray(5, 15));
      assert.deepEqual(Buffer.from(await reader.read(0, bytes.length)), bytes);
    }
  } finally {
    for (const reader of readers) await reader.close();
    await close();
  }
});

it('two daemons: the one behind keeps namespaces apart, holds what it is given, and gives up what the first collects', async () => {
  const first = await TestingMetadata.open();
  const second = await TestingMetadata.open();
  const peer = await TestingPeer.open((grpc) => grpc.add(Content, contentService(second.content)));
  const connection = new ProxyConnection('second', peer.address);
  const backend = new ProxyContent(connection);
  const { store, namespaces, exchange: events, log } = first;
  const locks = new KeyedLock();
  const mutated = () => {};
  const content = new MetadataContentStore({ store, backend, namespaces, events, policy: 'shared', locks, mutated });
  const collector = new Collector({ store, backend, locks, snapshotters: () => [], events, log });
  const a = contextOf('a');
  const b = contextOf('b');
  const bytes = Buffer.from('bytes of both');
  const digest = digestOf(bytes);
  const put = async (ctx: typeof a) => {
    const writer = await content.writer(ctx, { ref: 'put', size: bytes.length, expected: digest });
    await writer.write(bytes);
    await writer.commit({ labels: { 'containerd.io/gc.root': 'yes' } });
    await writer.close();
  };
  const keptBehind = async (ctx: typeof a) => {
    const found: string[] = [];
    for await (const info of second.content.list(ctx)) found.push(info.digest);
    return found;
  };
  try {
    await put(a);
    await put(b);
    await second.gc.collect();
    assert.deepEqual([await keptBehind(a), await keptBehind(b)], [[digest], [digest]]);
    await content.delete(a, digest);
    await collector.run();
    await using reader = await content.reader(b, digest);
    assert.equal(Buffer.from(await reader.read(0, 100)).toString(), 'bytes of both');
    await content.delete(b, digest);
    await collector.run();
    assert.deepEqual([await keptBehind(a), await keptBehind(b)], [[], []]);
    await peer.stop();
    await collector.run();
    assert.ok(first.warnings.some((warning) => /not collected, as it cannot be reached/.test(warning)));
  } finally {
    await connection.close();
    await peer.close();
    await first.close();
    await second.close();
  }
});

it('a process that takes calls and answers none does not keep the daemon from ending', async () => {
  const metadata = await TestingMetadata.open();
  const silent = net.createServer();
  const address = path.join(metadata.directory, 'silent.sock');
  const asked = once(silent, 'connection');
  await once(silent.listen(address), 'listening');
  const connection = new ProxyConnection('silent', address);
  const { store, exchange: events, log, locks } = metadata;
  await metadata.namespaces.create('a', {});
  const backend = new ProxyContent(connection);
  const collector = new Collector({ store, backend, locks, snapshotters: () => [], events, log });
  const running = collector.run();
  const [socket] = await asked;
  collector.stop();
  await assert.rejects(running, (error) => hasCode(error, Code.Canceled));
  await connection.close();
  socket.destroy();
  silent.close();
  await metadata.close();
});
