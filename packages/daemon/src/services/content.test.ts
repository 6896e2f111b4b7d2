import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Content, WriteAction } from '@gantry/api/gen/services/content/v1/content_pb.js';
import { type Client, createClient, GrpcServer, type GrpcTransport, grpcTransport } from '@gantry/rpc';
import type { ContentInfo, ContentStore, ContentWriter } from '../core/content/content-store.ts';
import { LocalContent } from '../plugins/content-local/local-content.ts';
import { contentService } from './content.ts';

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const withCode = (code: Code, message: RegExp) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  assert.match(reason.message, message);
  return true;
};

/** The local store as the one namespace there is, without labels. */
function oneNamespace(backend: LocalContent): ContentStore {
  const labelled = (info: Omit<ContentInfo, 'labels'>): ContentInfo => ({ ...info, labels: {} });
  return {
    info: async (_, digest) => labelled(await backend.info(digest)),
    update: async (_, { digest, labels }) => ({ ...labelled(await backend.info(digest)), labels }),
    async *list() {
      for await (const info of backend.list()) yield labelled(info);
    },
    delete: (_, digest) => backend.delete(digest),
    status: (_, ref) => backend.status(ref),
    listStatuses: () => backend.listStatuses(),
    abort: (_, ref) => backend.abort(ref),
    reader: (_, digest) => backend.reader(digest),
    async writer(_, options): Promise<ContentWriter> {
      const writer = await backend.writer(options);
      return {
        status: () => writer.status(),
        digest: () => writer.digest(),
        write: (chunk) => writer.write(chunk),
        truncate: (size) => writer.truncate(size),
        close: () => writer.close(),
        commit: async (commit) => {
          const { digest } = await writer.commit(commit);
          return labelled(await backend.info(digest));
        },
      };
    },
  };
}

type Request = Parameters<Client<typeof Content>['write']>[0] extends AsyncIterable<infer R> ? R : never;

describe('Content service over gRPC', () => {
  let dir: string;
  let backend: LocalContent;
  let server: GrpcServer;
  let transport: GrpcTransport;
  let client: Client<typeof Content>;

  before(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'gantry-content-service-'));
    backend = await LocalContent.open(path.join(dir, 'content'));
    server = new GrpcServer();
    server.add(Content, contentService(oneNamespace(backend)));
    await server.listenUnix(path.join(dir, 'sock'));
    transport = grpcTransport(path.join(dir, 'sock'), { namespace: 'test' });
    client = createClient(Content, transport);
  });
  after(async () => {
    await transport.close();
    await server.close();
    await rm(dir, { recursive: true });
  });

  /** Sends requests one at a time, each after the answer to the one before, as containerd's client does. */
  const write = async (...requests: Request[]) => {
    const answers: { action: WriteAction; offset: bigint; digest: string; total: bigint }[] = [];
    let answered = () => {};
    const lockstep = async function* () {
      for (const request of requests) {
        const next = new Promise<void>((resolve) => {
          answered = resolve;
        });
        yield request;
        await next;
      }
    };
    for await (const answer of client.write(lockstep())) {
      answers.push(answer);
      answered();
    }
    return answers;
  };
  const bytes = (text: string) => Buffer.from(text);
  const put = async (data: Uint8Array, ref = 'put') => {
    await write({ action: WriteAction.COMMIT, ref, data });
    return digestOf(data);
  };

  it('answers stat, write and commit, each with offset and digest', async () => {
    const answers = await write(
      { action: WriteAction.STAT, ref: 'steps', total: 6n },
      { action: WriteAction.WRITE, data: bytes('abc') },
      { action: WriteAction.WRITE, data: bytes('def'), offset: 3n },
      { action: WriteAction.COMMIT, offset: 6n, total: 6n, expected: digestOf(bytes('abcdef')) },
    );
    assert.deepEqual(
      answers.map(({ action, offset, digest }) => [action, offset, digest]),
      [
        [WriteAction.STAT, 0n, digestOf(bytes(''))],
        [WriteAction.WRITE, 3n, digestOf(bytes('abc'))],
        [WriteAction.WRITE, 6n, digestOf(bytes('abcdef'))],
        [WriteAction.COMMIT, 6n, digestOf(bytes('abcdef'))],
      ],
    );
    assert.equal(answers[0]?.total, 6n);
    const { info } = await client.info({ digest: digestOf(bytes('abcdef')) });
    assert.equal(info?.size, 6n);
  });

  it('wants a reference first', async () => {
    await assert.rejects(
      write({ action: WriteAction.STAT }),
      withCode(Code.InvalidArgument, /first message must have a reference/),
    );
  });

  it('resumes where the last call ended, starts over at offset 0, refuses gaps', async () => {
    await write({ action: WriteAction.WRITE, ref: 'resume', data: bytes('abc'), total: 6n });
    const { status } = await client.status({ ref: 'resume' });
    assert.deepEqual([status?.offset, status?.total], [3n, 6n]);
    assert.deepEqual(
      (await client.listStatuses({})).statuses.map((one) => one.ref),
      ['resume'],
    );
    await assert.rejects(
      write({ action: WriteAction.WRITE, ref: 'resume', data: bytes('x'), offset: 5n }),
      withCode(Code.OutOfRange, /write @5 must occur at current offset 3/),
    );
    const [over] = await write({ action: WriteAction.WRITE, ref: 'resume', data: bytes('12') });
    assert.deepEqual([over?.offset, over?.digest], [2n, digestOf(bytes('12'))]);
    const [done] = await write({ action: WriteAction.COMMIT, ref: 'resume', offset: 2n, data: bytes('3456') });
    assert.equal(done?.digest, digestOf(bytes('123456')));
    await assert.rejects(client.status({ ref: 'resume' }), withCode(Code.NotFound, /not found/));
  });

  it('checks size and digest at the commit', async () => {
    const commit = { action: WriteAction.COMMIT, ref: 'checked', data: bytes('abc') };
    await assert.rejects(
      write({ ...commit, total: 4n }),
      withCode(Code.FailedPrecondition, /unexpected commit size 3, expected 4/),
    );
    await client.abort({ ref: 'checked' });
    await assert.rejects(
      write({ ...commit, expected: digestOf(bytes('other')) }),
      withCode(Code.FailedPrecondition, /unexpected commit digest/),
    );
    await client.abort({ ref: 'checked' });
    await assert.rejects(client.abort({ ref: 'checked' }), withCode(Code.NotFound, /not found/));
  });

  it('says that a blob is there, first or later, and drops the ingest', async () => {
    const digest = await put(bytes('there'));
    const there = withCode(Code.AlreadyExists, /exists/);
    await assert.rejects(write({ action: WriteAction.STAT, ref: 'again', expected: digest }), there);
    await assert.rejects(
      write(
        { action: WriteAction.WRITE, ref: 'again', data: bytes('th') },
        { action: WriteAction.WRITE, offset: 2n, data: bytes('ere'), expected: digest },
      ),
      there,
    );
    assert.deepEqual((await client.listStatuses({})).statuses, []);
    await assert.rejects(put(bytes('there')), there);
  });

  it('locks a reference for as long as a call lasts', async () => {
    let end = () => {};
    const held = new Promise<void>((resolve) => {
      end = resolve;
    });
    const first = client
      .write(
        (async function* () {
          yield { action: WriteAction.STAT, ref: 'locked' };
          await held;
        })(),
      )
      [Symbol.asyncIterator]();
    await first.next();
    await assert.rejects(
      write({ action: WriteAction.STAT, ref: 'locked' }),
      withCode(Code.Unavailable, /ref locked locked for/),
    );
    end();
    await first.next();
    await write({ action: WriteAction.STAT, ref: 'locked' });
    await client.abort({ ref: 'locked' });
  });

  it('reads any part of a blob, in messages below the limit', async () => {
    const data = randomBytes(3_500_000);
    const half = data.length / 2;
    const digest = digestOf(data);
    await write(
      { action: WriteAction.WRITE, ref: 'big', data: data.subarray(0, half) },
      { action: WriteAction.COMMIT, offset: BigInt(half), data: data.subarray(half) },
    );
    const read = async (offset: number, size: number) => {
      const parts: Uint8Array[] = [];
      let expected = BigInt(offset);
      for await (const part of client.read({ digest, offset: BigInt(offset), size: BigInt(size) })) {
        assert.equal(part.offset, expected);
        assert.ok(part.data.length <= 1 << 20);
        expected += BigInt(part.data.length);
        parts.push(part.data);
      }
      return Buffer.concat(parts);
    };
    assert.deepEqual(await read(0, 0), data);
    assert.deepEqual(await read(1_000_000, 2_000_000), data.subarray(1_000_000, 3_000_000));
    assert.deepEqual(await read(3_499_990, 100), data.subarray(3_499_990));
    assert.equal((await read(data.length, 0)).length, 0);
    await assert.rejects(read(data.length + 1, 0), withCode(Code.OutOfRange, /read past object length 3500000 bytes/));
  });

  it('lists in batches of 100 and deletes', async () => {
    for (let i = 0; i < 130; i++) await put(bytes(`many ${i}`), `many-${i}`);
    const batches: number[] = [];
    for await (const { info } of client.list({})) batches.push(info.length);
    assert.equal(batches[0], 100);
    assert.ok(batches.length === 2 && batches[1]! > 30);
    const digest = digestOf(bytes('many 0'));
    await client.delete({ digest });
    await assert.rejects(client.info({ digest }), withCode(Code.NotFound, /not found/));
    await assert.rejects(client.delete({ digest }), withCode(Code.NotFound, /not found/));
  });

  it('refuses what is no digest', async () => {
    for (const digest of ['', 'x', 'sha256:zz']) {
      await assert.rejects(client.info({ digest }), withCode(Code.InvalidArgument, /failed validation/));
    }
  });
});
