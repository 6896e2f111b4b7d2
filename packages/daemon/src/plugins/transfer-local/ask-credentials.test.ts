import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny, unpackAny } from '@gantry/api';
import { AuthRequestSchema, AuthResponseSchema, AuthType } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { RegistryClient } from '@gantry/registry';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import type { MessageStream } from '../../core/streaming/stream-manager.ts';
import { askForCredentials } from './ask-credentials.ts';

type Answer = MessageInitShape<typeof AuthResponseSchema> | undefined;

/** A client that answers in order; what it was asked is kept. */
class Asked implements MessageStream {
  readonly questions: { host: string; reference: string; wwwauthenticate: string[] }[] = [];
  readonly closed = new Promise<void>(() => undefined);
  readonly #answers: Answer[];

  constructor(...answers: Answer[]) {
    this.#answers = answers;
  }

  send(message: Any): void {
    const { host, reference, wwwauthenticate } = unpackAny(AuthRequestSchema, message);
    this.questions.push({ host, reference, wwwauthenticate });
  }

  async receive(): Promise<Any | undefined> {
    const answer = this.#answers.shift();
    return answer && packAny(AuthResponseSchema, answer);
  }

  close(): void {}
}

const at = (ms: number) => ({ seconds: BigInt(Math.floor((Date.now() + ms) / 1000)), nanos: 0 });

test('answers of each kind', async () => {
  const hour = at(3600_000);
  const cases: [Answer, object | undefined][] = [
    [
      { authType: AuthType.CREDENTIALS, username: 'me', secret: 's' },
      { kind: 'password', username: 'me', secret: 's' },
    ],
    [
      { authType: AuthType.CREDENTIALS, secret: 's' },
      { kind: 'refresh', token: 's' },
    ],
    [
      { authType: AuthType.REFRESH, secret: 's' },
      { kind: 'refresh', token: 's' },
    ],
    [
      { authType: AuthType.HEADER, secret: 'Basic x' },
      { kind: 'header', value: 'Basic x' },
    ],
    [
      { authType: AuthType.HEADER, secret: 'x', expireAt: hour },
      { kind: 'header', value: 'x', expiresAt: Number(hour.seconds) * 1000 },
    ],
    [{ authType: AuthType.HEADER, secret: 'x', expireAt: at(-60_000) }, undefined],
    [{ authType: AuthType.NONE, username: 'me', secret: 's' }, undefined],
    [{ authType: AuthType.CREDENTIALS, username: 'me' }, undefined],
    [undefined, undefined],
  ];
  for (const [answer, expected] of cases) {
    const got = await askForCredentials(new Asked(answer), 'r')({ host: 'h' });
    assert.deepEqual(got, expected);
  }
});

test('one question at a time; who is given up stops waiting', async () => {
  const stream = new Asked();
  const waiting: ((answer: Any) => void)[] = [];
  stream.receive = () => new Promise((resolve) => waiting.push(resolve));
  const ask = askForCredentials(stream, 'r');
  const giveUp = new AbortController();
  const [first, second] = [ask({ host: 'a' }, giveUp.signal), ask({ host: 'b' })];
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(
    stream.questions.map(({ host }) => host),
    ['a'],
  );
  giveUp.abort(new Error('enough'));
  await assert.rejects(first, /enough/);
  await new Promise((resolve) => setImmediate(resolve));
  waiting.at(-1)?.(packAny(AuthResponseSchema, { authType: AuthType.HEADER, secret: 'for b' }));
  assert.deepEqual(await second, { kind: 'header', value: 'for b' });
});

test('the client is told what the registry asked for', async () => {
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (request.headers.authorization === 'Basic right') return false;
      response.writeHead(401, { 'www-authenticate': 'Basic realm="a place"' }).end();
      return true;
    },
  });
  registry.addManifest('a', 'application/vnd.oci.image.manifest.v1+json', {}, 'v1');
  const reference = `${registry.host}/a:v1`;
  const stream = new Asked({ authType: AuthType.HEADER, secret: 'Basic right' });
  await using client = new RegistryClient({ credentials: askForCredentials(stream, reference) });
  await client.resolve(reference);
  assert.deepEqual(stream.questions, [{ host: registry.host, reference, wwwauthenticate: ['Basic realm="a place"'] }]);
});
