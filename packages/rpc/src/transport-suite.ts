// What a server and a client owe each other over any transport; run by the tests of gRPC and of ttrpc.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Code, hasCode, isAny, notFound, packAny, StatusError, unpackAny } from '@gantry/api';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { DescriptorSchema } from '@gantry/api/gen/types/descriptor_pb.js';
import { callsInFlight } from './calls-in-flight.ts';
import { createClient } from './client.ts';
import type { CallReport, ServerOptions } from './server-call.ts';
import type { CallContext, ServiceRegistrar, Transport } from './service.ts';
import {
  asTestClient,
  type Item,
  type TestClient,
  type TestHandlers,
  TestService,
  testImplementation,
  toArray,
} from './testing-service.ts';

/** A server with a client connected to it, both ends of the transport under test. */
export interface Pair {
  readonly server: ServiceRegistrar;
  readonly transport: Transport;
  /** Breaks the connection under the client's feet. */
  sever(): void;
  close(): Promise<void>;
}

export interface SuiteOptions {
  name: 'grpc' | 'ttrpc';
  /** Bytes over which a message is refused. */
  limit: number;
  connect(options?: ServerOptions): Promise<Pair>;
}

const code = (wanted: Code, message?: RegExp | string) => (reason: unknown) => {
  assert.ok(hasCode(reason, wanted), `wanted code ${wanted}, got ${String(reason)} (${(reason as StatusError).code})`);
  if (message instanceof RegExp) assert.match(reason.message, message);
  else if (message !== undefined) assert.equal(reason.message, message);
  return true;
};

async function* texts(...items: string[]): AsyncGenerator<Partial<Item>> {
  for (const text of items) yield { text };
}

const aborted = (signal: AbortSignal) =>
  new Promise<StatusError>((resolve) => signal.addEventListener('abort', () => resolve(signal.reason), { once: true }));

export function transportSuite(suite: SuiteOptions): void {
  const test = (
    name: string,
    handlers: TestHandlers,
    body: (client: TestClient, pair: Pair) => Promise<void>,
    options?: ServerOptions,
  ) =>
    it(name, { timeout: 30_000 }, async () => {
      const pair = await suite.connect(options);
      try {
        pair.server.add(TestService, testImplementation(handlers));
        await body(asTestClient(createClient(TestService, pair.transport)), pair);
      } finally {
        await pair.close();
      }
    });

  test('unary: a promise or a value', {
    one: ({ text }) => (text === 'now' ? { text } : Promise.resolve({ text })),
  }, async (client) => {
    assert.equal((await client.one({ text: 'now' })).text, 'now');
    assert.equal((await client.one({ text: 'later' })).text, 'later');
    assert.equal((await client.one({})).text, '');
  });

  let release = (): void => {};
  test('calls that are not answered yet can be listed', {
    one: async ({ text }, { signal }) => {
      if (text === 'waits for its caller') await aborted(signal);
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return { text };
    },
    out: async function* ({ text }, { signal }) {
      yield { text };
      await aborted(signal);
    },
  }, async (client) => {
    const listed = () => callsInFlight().map(({ method, namespace, cancelled }) => ({ method, namespace, cancelled }));
    const until = async (count: number, cancelled = false) => {
      const deadline = Date.now() + 10_000;
      while (listed().length !== count || listed().some((call) => call.cancelled !== cancelled)) {
        assert.ok(Date.now() < deadline, `${count} calls are awaited, listed are ${JSON.stringify(listed())}`);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const answer = client.one({ text: 'a' }, { namespace: 'ns' });
    await until(1);
    assert.deepEqual(listed(), [{ method: 'One', namespace: 'ns', cancelled: false }]);
    assert.ok(callsInFlight()[0]!.ageMs >= 0);
    release();
    await answer;
    await until(0);
    // ttrpc's clients do not tell the server that they have gone.
    if (suite.name === 'ttrpc') return;
    // Nobody waits for these any more: the stream is over at once, the other when its handler comes to its end.
    for await (const { text } of client.out({ text: 'b' })) {
      assert.equal(text, 'b');
      assert.equal(listed()[0]?.method, 'Out');
      break;
    }
    await until(0);
    const leaving = new AbortController();
    const left = client.one({ text: 'waits for its caller' }, { signal: leaving.signal });
    await until(1);
    leaving.abort();
    await assert.rejects(left, code(Code.Canceled));
    await until(1, true);
    release();
    await until(0);
  });

  test('an answer stream', {
    out: async function* ({ text }) {
      for (let i = 0; i < 3; i++) yield { text: `${text}${i}` };
    },
  }, async (client) => {
    assert.deepEqual(await toArray(client.out({ text: 'a' })), ['a0', 'a1', 'a2']);
  });

  test('an empty answer stream', { out: async function* () {} }, async (client) => {
    assert.deepEqual(await toArray(client.out({})), []);
  });

  test('a request stream', {
    into: async (requests) => ({ text: (await toArray(requests)).join('+') }),
  }, async (client) => {
    assert.equal((await client.into(texts('a', 'b', 'c'))).text, 'a+b+c');
    assert.equal((await client.into(texts())).text, '');
  });

  test('two-way streams, message by message', {
    both: async function* (requests) {
      for await (const { text } of requests) yield { text: `${text}!` };
    },
  }, async (client) => {
    let answer: ((text: string) => void) | undefined;
    const seen: string[] = [];
    const requests = async function* () {
      for (let i = 0; i < 5; i++) {
        const next = new Promise<string>((resolve) => {
          answer = resolve;
        });
        yield { text: `${i}` };
        assert.equal(await next, `${i}!`);
      }
    };
    for await (const { text } of client.both(requests())) {
      seen.push(text);
      answer?.(text);
    }
    assert.equal(seen.length, 5);
  });

  test('a server may end a two-way stream while the client still sends', {
    both: async function* (requests) {
      for await (const { text } of requests) {
        yield { text };
        return;
      }
    },
  }, async (client) => {
    let stopped = false;
    const requests = async function* () {
      try {
        for (;;) {
          yield { text: 'x' };
          await new Promise((resolve) => setImmediate(resolve));
        }
      } finally {
        stopped = true;
      }
    };
    assert.deepEqual(await toArray(client.both(requests())), ['x']);
    while (!stopped) await new Promise((resolve) => setImmediate(resolve));
  });

  const many = 3000;
  test('many messages keep their order, both ways', {
    both: async function* (requests) {
      for await (const { text, data } of requests) yield { text, data };
    },
  }, async (client) => {
    const data = new Uint8Array(1000);
    const requests = async function* () {
      for (let i = 0; i < many; i++) yield { text: `${i}`, data };
    };
    let expected = 0;
    for await (const { text } of client.both(requests())) assert.equal(text, `${expected++}`);
    assert.equal(expected, many);
  });

  test('a slow reader holds the sender back', {
    out: async function* (_request, { metadata }) {
      const data = new Uint8Array(256 << 10);
      for (let i = 0; i < Number(metadata.get('count')?.[0]); i++) {
        produced++;
        yield { data };
      }
    },
  }, async (client) => {
    produced = 0;
    const count = 400;
    const iterator = client.out({}, { metadata: { count: `${count}` } })[Symbol.asyncIterator]();
    await iterator.next();
    // Wait until the sender stands still: the same count over many turns with time for the sockets between.
    let before = -1;
    for (let still = 0; still < 20; ) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      still = produced === before ? still + 1 : 0;
      before = produced;
    }
    assert.ok(produced < count, `all ${produced} messages were made though nobody read them`);
    let taken = 1;
    while (!(await iterator.next()).done) taken++;
    assert.equal(taken, count);
  });
  let produced = 0;

  test('errors keep code, message and details', {
    one: () => {
      throw new StatusError(Code.FailedPrecondition, 'image "ä%\n😀": not ready', {
        details: [packAny(DescriptorSchema, { digest: 'sha256:1', size: 7n })],
      });
    },
    out: async function* () {
      yield { text: 'first' };
      throw notFound('content digest sha256:2: not found');
    },
    into: async () => {
      throw new Error('something else');
    },
  }, async (client) => {
    await assert.rejects(client.one({}), (reason) => {
      assert.ok(code(Code.FailedPrecondition, 'image "ä%\n😀": not ready')(reason));
      const [detail] = (reason as StatusError).details;
      assert.ok(isAny(detail, DescriptorSchema));
      assert.equal(unpackAny(DescriptorSchema, detail!).size, 7n);
      return true;
    });
    const iterator = client.out({})[Symbol.asyncIterator]();
    assert.equal((await iterator.next()).value.text, 'first');
    await assert.rejects(iterator.next(), code(Code.NotFound, 'content digest sha256:2: not found'));
    assert.deepEqual(await iterator.next(), { done: true, value: undefined });
    await assert.rejects(client.into(texts('a')), code(Code.Unknown, 'something else'));
  });

  test('what is missing is unimplemented', {}, async (client, pair) => {
    await assert.rejects(client.one({}), code(Code.Unimplemented, 'unknown method One for service gantry.test.Test'));
    await assert.rejects(toArray(client.out({})), code(Code.Unimplemented));
    await assert.rejects(client.into(texts('a')), code(Code.Unimplemented));
    await assert.rejects(createClient(Version, pair.transport).version({}), code(Code.Unimplemented));
  });

  let seen: CallContext | undefined;
  test('metadata, namespace and lease arrive', {
    one: (_request, context) => {
      seen = context;
      context.sendHeaders({ 'x-answer': 'yes' });
      return {};
    },
  }, async (client) => {
    await client.one({}, { namespace: 'k8s.io', lease: 'l1', metadata: { 'x-One': 'a b' } });
    assert.equal(seen?.namespace, 'k8s.io');
    assert.equal(seen?.lease, 'l1');
    assert.deepEqual(seen?.metadata.get('x-one'), ['a b']);
    assert.equal(seen?.service, 'gantry.test.Test');
    assert.equal(seen?.method, 'One');
    assert.equal(seen?.transport, suite.name);
    assert.equal(seen?.signal.aborted, false);
    await client.one({});
    assert.equal(seen?.namespace, undefined);
    assert.equal(seen?.lease, undefined);
  });

  const ended = Promise.withResolvers<StatusError>();
  test('a deadline ends the call on both sides', {
    one: async (_request, { signal }) => {
      ended.resolve(await aborted(signal));
      throw signal.reason;
    },
    out: async function* (_request, { signal }) {
      yield { text: 'first' };
      await aborted(signal);
    },
  }, async (client) => {
    await assert.rejects(client.one({}, { timeoutMs: 30 }), code(Code.DeadlineExceeded));
    // The server's clock starts a little later: its client may have taken the call back before it strikes.
    const { code: told } = await ended.promise;
    assert.ok(told === Code.DeadlineExceeded || told === Code.Canceled);
    await assert.rejects(toArray(client.out({}, { timeoutMs: 30 })), code(Code.DeadlineExceeded));
  });

  let cleaned = Promise.withResolvers<void>();
  test(
    'a caller that aborts gets Canceled at once',
    {
      one: (_request, { signal }) => aborted(signal).then(() => ({})),
      out: async function* (_request, { signal }) {
        try {
          yield { text: 'first' };
          await aborted(signal);
        } finally {
          cleaned.resolve();
        }
      },
    },
    async (client, pair) => {
      const before = new AbortController();
      before.abort();
      await assert.rejects(client.one({}, { signal: before.signal }), code(Code.Canceled));
      const during = new AbortController();
      const call = client.one({}, { signal: during.signal });
      setTimeout(() => during.abort(), 10);
      await assert.rejects(call, code(Code.Canceled));
      const streaming = new AbortController();
      const iterator = client.out({}, { signal: streaming.signal })[Symbol.asyncIterator]();
      await iterator.next();
      streaming.abort();
      await assert.rejects(iterator.next(), code(Code.Canceled));
      // ttrpc cannot tell the server; the end of the connection does.
      if (suite.name === 'ttrpc') pair.sever();
      await cleaned.promise;
    },
  );

  test(
    'leaving a stream early ends it',
    {
      out: async function* (_request, { signal }) {
        try {
          for (let i = 0; !signal.aborted; i++) {
            yield { text: `${i}` };
            await new Promise((resolve) => setImmediate(resolve));
          }
        } finally {
          cleaned.resolve();
        }
      },
    },
    async (client, pair) => {
      cleaned = Promise.withResolvers();
      for await (const { text } of client.out({})) if (text === '3') break;
      if (suite.name === 'ttrpc') pair.sever();
      await cleaned.promise;
    },
  );

  test('a request stream that throws fails its call with that error', {
    into: async (requests) => ({ text: (await toArray(requests)).join() }),
  }, async (client) => {
    const requests = async function* () {
      yield { text: 'a' };
      throw new Error('my own fault');
    };
    await assert.rejects(client.into(requests()), code(Code.Unknown, 'my own fault'));
  });

  test('too large messages are refused, the connection lives on', {
    one: ({ text, data }) => (text === 'grow' ? { data: new Uint8Array(suite.limit + 1) } : { text: `${data.length}` }),
  }, async (client) => {
    await assert.rejects(client.one({ data: new Uint8Array(suite.limit + 1) }), code(Code.ResourceExhausted));
    await assert.rejects(client.one({ text: 'grow' }), code(Code.ResourceExhausted));
    assert.equal((await client.one({ data: new Uint8Array(suite.limit - 1000) })).text, `${suite.limit - 1000}`);
  });

  test('a thousand calls at once', {
    one: async ({ text }) => new Promise((resolve) => setTimeout(() => resolve({ text }), Math.random() * 20)),
  }, async (client) => {
    const answers = await Promise.all(Array.from({ length: 1000 }, (_, i) => client.one({ text: `${i}` })));
    for (const [i, answer] of answers.entries()) assert.equal(answer.text, `${i}`);
  });

  let waiting: ReturnType<typeof Promise.withResolvers<void>>;
  test(
    'a broken connection fails its calls and cancels their handlers',
    {
      one: async (_request, { signal }) => {
        waiting.resolve();
        await aborted(signal);
        cleaned.resolve();
        return {};
      },
    },
    async (client, pair) => {
      cleaned = Promise.withResolvers();
      waiting = Promise.withResolvers();
      const call = client.one({});
      const outcome = assert.rejects(call, code(Code.Unavailable));
      await waiting.promise;
      pair.sever();
      await outcome;
      await cleaned.promise;
    },
  );

  const reports: CallReport[] = [];
  const order: string[] = [];
  test(
    'interceptors stand around calls, reports follow them',
    {
      one: ({ text }) => {
        order.push('handler');
        if (text === 'bad') throw notFound('nothing');
        return { text };
      },
      out: async function* () {
        yield { text: 'x' };
      },
    },
    async (client) => {
      assert.equal((await client.one({ text: 'a' })).text, 'a');
      assert.deepEqual(order.splice(0), ['outer', 'inner', 'handler', 'inner done', 'outer done']);
      await assert.rejects(client.one({ text: 'bad' }), code(Code.NotFound, 'seen: nothing'));
      await assert.rejects(client.one({}, { namespace: 'forbidden' }), code(Code.PermissionDenied));
      assert.deepEqual(await toArray(client.out({})), ['x']);
      assert.deepEqual(
        reports.map((report) => [report.method, report.kind, report.code, report.transport]),
        [
          ['One', 'unary', Code.Ok, suite.name],
          ['One', 'unary', Code.NotFound, suite.name],
          ['One', 'unary', Code.PermissionDenied, suite.name],
          ['Out', 'server_streaming', Code.Ok, suite.name],
        ],
      );
      for (const report of reports) assert.ok(report.durationMs >= 0);
    },
    {
      onCall: (report) => reports.push(report),
      interceptors: [
        async (call, next) => {
          order.push('outer');
          if (call.namespace === 'forbidden') throw new StatusError(Code.PermissionDenied, 'no');
          await next().catch((reason) => {
            throw StatusError.wrap(reason, 'seen');
          });
          order.push('outer done');
        },
        async (_call, next) => {
          order.push('inner');
          await next();
          order.push('inner done');
        },
      ],
    },
  );
}
