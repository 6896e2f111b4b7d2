import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { notFound } from '@gantry/api';
import { type Descriptor, digestOf, MediaType } from '@gantry/oci';
import type { ImageSource, Judgement } from '../../core/verification/image-verifier.ts';
import { matchesRepository, readRules, repositoryKey } from './policy.ts';
import { PolicyVerifier } from './policy-verifier.ts';
import { readSigningKey } from './public-key.ts';

const name = 'registry.example.com/prod/app:1';
const image: Descriptor = { mediaType: MediaType.OciManifest, digest: digestOf('the image'), size: 9 };
const tag = `registry.example.com/prod/app:${image.digest.replace(':', '-')}.sig`;

/** A registry of signatures in memory. */
class Signatures implements ImageSource {
  readonly blobs = new Map<string, Buffer>();
  readonly tags = new Map<string, Descriptor>();
  readonly list: Descriptor[] = [];
  fetched = 0;

  #add(bytes: Buffer, mediaType: string): Descriptor {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  }

  #manifest(layers: object[]): Descriptor {
    const config = this.#add(Buffer.from('{}'), 'application/vnd.oci.empty.v1+json');
    const manifest = { schemaVersion: 2, mediaType: MediaType.OciManifest, config, layers };
    return this.#add(Buffer.from(JSON.stringify(manifest)), MediaType.OciManifest);
  }

  simple(signatures: { payload: string; signature: string }[], at = tag): void {
    const type = 'application/vnd.dev.cosign.simplesigning.v1+json';
    const layers = signatures.map(({ payload, signature }) => ({
      ...this.#add(Buffer.from(payload), type),
      annotations: { 'dev.cosignproject.cosign/signature': signature },
    }));
    this.tags.set(at, this.#manifest(layers));
  }

  bundle(bundle: unknown, artifactType = 'application/vnd.dev.sigstore.bundle.v0.3+json'): void {
    const layer = this.#add(Buffer.from(JSON.stringify(bundle)), 'application/vnd.dev.sigstore.bundle.v0.3+json');
    this.list.push({ ...this.#manifest([layer]), artifactType });
  }

  async resolve(reference: string): Promise<{ descriptor: Descriptor }> {
    const descriptor = this.tags.get(reference);
    if (!descriptor) throw notFound(`${reference}: not found`);
    return { descriptor };
  }

  async *fetch(_reference: string, { digest }: Descriptor): AsyncGenerator<Uint8Array> {
    this.fetched++;
    yield this.blobs.get(digest) ?? assert.fail(`${digest} is not there`);
  }

  async referrers(): Promise<Descriptor[]> {
    return this.list;
  }
}

const payload = (digest = image.digest, optional: object | null = null): string =>
  JSON.stringify({
    critical: {
      identity: { 'docker-reference': 'registry.example.com/prod/app' },
      image: { 'docker-manifest-digest': digest },
      type: 'cosign container image signature',
    },
    optional,
  });

/** The hash that cosign takes for a key. */
const hashFor = (key: KeyObject): string | null =>
  key.asymmetricKeyType === 'ed25519'
    ? null
    : ({ secp384r1: 'sha384', secp521r1: 'sha512' }[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 'sha256');

const signed = (text: string, key: KeyObject): { payload: string; signature: string } => ({
  payload: text,
  signature: sign(hashFor(key), Buffer.from(text), key).toString('base64'),
});

const bundleOf = (key: KeyObject, statement: object, payloadType = 'application/vnd.in-toto+json'): object => {
  const text = JSON.stringify(statement);
  const encoded = `DSSEv1 ${payloadType.length} ${payloadType} ${text.length} ${text}`;
  const signature = sign(hashFor(key), Buffer.from(encoded), key);
  return {
    mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
    verificationMaterial: { publicKey: { hint: 'a hint' } },
    dsseEnvelope: {
      payload: Buffer.from(text).toString('base64'),
      payloadType,
      signatures: [{ sig: signature.toString('base64') }],
    },
  };
};

const statementOf = (digest = image.digest, changes: object = {}): object => ({
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ digest: { sha256: digest.slice(7) } }],
  predicateType: 'https://sigstore.dev/cosign/sign/v1',
  ...changes,
});

describe('rules', () => {
  test('patterns of repositories', () => {
    const cases: [string, string, boolean][] = [
      ['registry.example.com/prod/*', 'registry.example.com/prod/app:1', true],
      ['registry.example.com/prod/*', 'registry.example.com/prod/a/b', false],
      ['registry.example.com/prod/**', 'registry.example.com/prod/a/b@sha256:0', true],
      ['registry.example.com/prod', 'registry.example.com/prod/app', false],
      ['**', 'anything.at/all', true],
      ['*.example.com/**', 'a.example.com/x', true],
      ['Registry.Example.com/App', 'REGISTRY.example.com/App', true],
      ['registry.example.com/App', 'registry.example.com/app', false],
      ['registry.example.com/prod/**', 'registry.example.com/prod/../dev/app', false],
      ['registry.example.com/dev/**', 'registry.example.com/prod/../dev/app', true],
      ['registryXexample.com/**', 'registry.example.com/x', false],
      ['localhost:5000/**', 'localhost:5000/x:1', true],
    ];
    for (const [pattern, reference, expected] of cases) {
      assert.equal(matchesRepository(pattern, repositoryKey(reference)), expected, `${pattern} ${reference}`);
    }
  });

  test('a wrong rule is refused with its place', () => {
    const good = { repositories: ['**'], action: 'require-signature', keys: ['/k.pub'] };
    assert.equal(readRules([good])[0]?.required, 1);
    const cases: [object, RegExp][] = [
      [{ ...good, key: '/k' }, /rule 1: unknown key key/],
      [{ ...good, action: 'maybe' }, /rule 1: action/],
      [{ ...good, keys: [] }, /a required signature needs a key/],
      [{ ...good, keys: ['k.pub'] }, /expected absolute paths/],
      [{ ...good, required: 2 }, /required: expected a number/],
      [{ action: 'allow' }, /repositories: expected/],
      [{ ...good, annotations: { a: 1 } }, /annotations/],
    ];
    for (const [rule, message] of cases) assert.throws(() => readRules([rule]), message);
  });

  test('the first rule that fits decides, and the verdict names it', async () => {
    const judge = (reference: string, defaultAction: 'allow' | 'deny' = 'allow') =>
      new PolicyVerifier({
        rules: readRules([
          { repositories: ['registry.example.com/prod/legacy', 'a.io/**'], action: 'allow' },
          { repositories: ['registry.example.com/**'], action: 'deny' },
        ]),
        defaultAction,
        timeoutMs: 1000,
      }).verifyImage({ namespace: 'default' }, reference, image);
    assert.deepEqual(await judge('registry.example.com/prod/legacy:1'), {
      ok: true,
      reason: 'rule 1 (registry.example.com/prod/legacy) allows it',
    });
    assert.deepEqual(await judge(name), { ok: false, reason: 'rule 2 (registry.example.com/**) denies it' });
    assert.deepEqual(await judge('b.io/x'), { ok: true, reason: 'no rule is about b.io/x: allow by default' });
    assert.deepEqual(await judge('b.io/x', 'deny'), { ok: false, reason: 'no rule is about b.io/x: deny by default' });
  });
});

describe('signatures', () => {
  let dir: string;
  let source: Signatures;
  const keys = {
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    p521: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ed25519: generateKeyPairSync('ed25519'),
    stranger: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  };
  const file = (kind: keyof typeof keys): string => path.join(dir, `${kind}.pub`);
  const judge = (rule: object = {}, from: ImageSource | undefined = source): Promise<Judgement> =>
    new PolicyVerifier({
      rules: readRules([
        { repositories: ['registry.example.com/prod/**'], action: 'require-signature', keys: [file('ec')], ...rule },
      ]),
      defaultAction: 'allow',
      timeoutMs: 10_000,
    }).verifyImage({ namespace: 'default' }, name, image, from);

  before(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-policy-'));
    for (const kind of Object.keys(keys) as (keyof typeof keys)[]) {
      writeFileSync(file(kind), keys[kind].publicKey.export({ type: 'spki', format: 'pem' }));
    }
  });
  beforeEach(() => {
    source = new Signatures();
  });
  after(() => rmSync(dir, { recursive: true }));

  test('every kind of key, in both formats; the verdict names rule, key and payload', async () => {
    for (const kind of ['ec', 'p384', 'p521', 'rsa', 'ed25519'] as const) {
      const { fingerprint } = readSigningKey(file(kind));
      const one = signed(payload(), keys[kind].privateKey);
      source = new Signatures();
      source.simple([one]);
      assert.deepEqual(await judge({ keys: [file(kind)] }), {
        ok: true,
        reason: `rule 1 (registry.example.com/prod/**) requires a signature: signature ${digestOf(one.payload)} in ${tag} by key ${file(kind)} (SHA256:${fingerprint})`,
      });
      source = new Signatures();
      source.bundle(bundleOf(keys[kind].privateKey, statementOf()));
      const { ok, reason } = await judge({ keys: [file(kind)] });
      assert.ok(ok, reason);
      assert.match(reason, new RegExp(`in registry.example.com/prod/app@sha256:[0-9a-f]{64} by key ${file(kind)} `));
    }
  });

  test('no signature, a stranger’s, another image’s, a broken one: denied, and why', async () => {
    const none = await judge();
    assert.equal(none.ok, false);
    assert.match(
      none.reason,
      /requires a signature by key \/.*ec\.pub: none found in registry\.example\.com\/prod\/app$/,
    );
    const other = digestOf('another image');
    const { privateKey } = keys.ec;
    const good = signed(payload(), privateKey);
    const changed = { payload: payload(image.digest, { env: 'prod' }), signature: good.signature };
    const atomic = signed(payload().replace('cosign container', 'atomic container'), privateKey);
    const cases: [() => void, RegExp][] = [
      [() => source.simple([signed(payload(), keys.stranger.privateKey)]), /is by none of the keys/],
      [() => source.simple([signed(payload(other), privateKey)]), new RegExp(`it is for another image: ${other}`)],
      [() => source.simple([changed]), /is by none of the keys/],
      [() => source.simple([{ ...good, signature: 'AAAA' }]), /is by none of the keys/],
      [() => source.simple([signed('{"critical":', privateKey)]), /not JSON/],
      [() => source.simple([signed('null', privateKey)]), /not about an image/],
      [() => source.simple([atomic]), /not about an image/],
      [() => source.bundle(bundleOf(keys.stranger.privateKey, statementOf())), /is by none of the keys/],
      [() => source.bundle(bundleOf(privateKey, statementOf(other))), /it is for another image/],
      [
        () =>
          source.bundle(
            bundleOf(privateKey, statementOf(image.digest, { predicateType: 'https://slsa.dev/provenance/v1' })),
          ),
        /it is a statement of type https:\/\/slsa\.dev/,
      ],
      [
        () => source.bundle(bundleOf(privateKey, statementOf(), 'text/plain')),
        /it signs something of type text\/plain/,
      ],
      [() => source.bundle({ mediaType: 'x' }), /it is no Sigstore bundle/],
      [() => source.bundle(bundleOf(privateKey, statementOf()), 'application/spdx+json'), /none found/],
    ];
    for (const [prepare, message] of cases) {
      source = new Signatures();
      prepare();
      const { ok, reason } = await judge();
      assert.equal(ok, false, reason);
      assert.match(reason, message);
    }
  });

  test('one good signature among others is enough', async () => {
    source.simple([
      signed(payload(), keys.stranger.privateKey),
      signed(payload(digestOf('x')), keys.ec.privateKey),
      signed(payload(), keys.ec.privateKey),
    ]);
    assert.equal((await judge()).ok, true);
    source = new Signatures();
    source.simple([signed(payload(), keys.stranger.privateKey)]);
    source.bundle(bundleOf(keys.ec.privateKey, statementOf()), 'application/vnd.oci.empty.v1+json');
    assert.equal((await judge()).ok, true);
  });

  test('several keys: each has to sign, the same one twice is one', async () => {
    const rule = { keys: [file('ec'), file('rsa'), file('ed25519')], required: 2 };
    const first = signed(payload(), keys.ec.privateKey);
    source.simple([first, signed(payload(), keys.ec.privateKey)]);
    const { ok, reason } = await judge(rule);
    assert.equal(ok, false);
    assert.match(reason, /requires signatures of 2 keys by one of the keys .*is by no further key/);
    source.simple([first, signed(payload(), keys.ed25519.privateKey)]);
    const both = await judge(rule);
    assert.ok(both.ok, both.reason);
    assert.match(both.reason, /by key .*ec\.pub .*; signature .* by key .*ed25519\.pub/);
    await assert.rejects(judge({ keys: [file('ec'), file('ec')], required: 2 }), /its keys are the same/);
  });

  test('annotations, and signatures kept elsewhere', async () => {
    const rule = { annotations: { env: 'prod' } };
    source.simple([signed(payload(image.digest, { env: 'dev' }), keys.ec.privateKey)]);
    assert.match((await judge(rule)).reason, /it has no annotation env=prod/);
    source.simple([signed(payload(image.digest, { env: 'prod' }), keys.ec.privateKey)]);
    assert.equal((await judge(rule)).ok, true);
    const moved = { signature_repository: 'sigs.example.com/all' };
    assert.equal((await judge(moved)).ok, false);
    source.simple(
      [signed(payload(), keys.ec.privateKey)],
      tag.replace('registry.example.com/prod/app', 'sigs.example.com/all'),
    );
    assert.equal((await judge(moved)).ok, true);
  });

  test('what cannot be found out is an error, which blocks', async () => {
    await assert.rejects(judge({ keys: [path.join(dir, 'gone.pub')] }), /key .*gone\.pub: ENOENT/);
    const privateFile = path.join(dir, 'private.pem');
    writeFileSync(privateFile, keys.ec.privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await assert.rejects(judge({ keys: [privateFile] }), /no PEM file with a PUBLIC KEY/);
    const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
    writeFileSync(path.join(dir, 'weak.pub'), weak.publicKey.export({ type: 'spki', format: 'pem' }));
    await assert.rejects(judge({ keys: [path.join(dir, 'weak.pub')] }), /RSA from 2048 bits/);
    source.resolve = () => Promise.reject(new Error('connection refused'));
    await assert.rejects(judge(), /connection refused/);
    source = new Signatures();
    source.simple([signed(payload(), keys.ec.privateKey)]);
    const { digest } = source.tags.get(tag)!;
    source.blobs.set(digest, Buffer.from('{}'));
    await assert.rejects(judge(), /what was sent is not sha256:/);
    await assert.rejects(
      new PolicyVerifier({
        rules: readRules([{ repositories: ['**'], action: 'require-signature', keys: [file('ec')] }]),
        defaultAction: 'allow',
        timeoutMs: 1000,
      }).verifyImage({ namespace: 'default' }, name, image),
      /there is no registry to ask/,
    );
  });

  test('no more is fetched than a signature may need', async () => {
    source.simple([signed(`"${'x'.repeat(2 << 20)}"`, keys.ec.privateKey)]);
    await assert.rejects(judge(), /too many for a signature/);
    source = new Signatures();
    source.simple(Array.from({ length: 257 }, () => signed(payload(), keys.stranger.privateKey)));
    await assert.rejects(judge(), /more than 256 signatures/);
  });
});

/** Made by cosign 2.6.5 with `--new-bundle-format`. */
const recorded = [
  {
    kind: 'ECDSA',
    pem: `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8ifOY3TOKnCnN/pZXgsbLMynTse0
oTYDMxHXQBqx1NqOjbnO3crCW2H58OMnQakgpM8unKG2BoSAV0i18JRg5w==
-----END PUBLIC KEY-----
`,
    bundle:
      '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"WfmNqL9Et+0+98nlmPf1h8mMIbxu7xlaHg2A8HDVlL8="}},"dsseEnvelope":{"payload":"eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJkaWdlc3QiOnsic2hhMjU2IjoiY2U2NjFhZmE4ZjBjMjc1NGNkOTIwYTk4NTIyMmUxY2Y1NmFiMDZiN2JlYmMyMGQ5NmMyZGMxYWY4NTg1ZDBmNSJ9fV0sInByZWRpY2F0ZVR5cGUiOiJodHRwczovL3NpZ3N0b3JlLmRldi9jb3NpZ24vc2lnbi92MSJ9","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEYCIQCA18bXSg0ENR0XF+J0B1WaQh9LH1TdLOIm3+07rdfKaAIhAOHWZqGKqW8jJCYeAWZpWofiYhpOfePisaQe44SwHXrk"}]}}',
  },
  {
    kind: 'Ed25519',
    pem: `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAjSVUdpZkSEHlUgdZG1r2xuD4v3iwpp5a9aYZAYP76fM=
-----END PUBLIC KEY-----
`,
    bundle:
      '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"UB262BqRmFOC+j/EUsmQrCoCO4FOeNu+xNWoy10wSR8="}},"dsseEnvelope":{"payload":"eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJkaWdlc3QiOnsic2hhMjU2IjoiY2U2NjFhZmE4ZjBjMjc1NGNkOTIwYTk4NTIyMmUxY2Y1NmFiMDZiN2JlYmMyMGQ5NmMyZGMxYWY4NTg1ZDBmNSJ9fV0sInByZWRpY2F0ZVR5cGUiOiJodHRwczovL3NpZ3N0b3JlLmRldi9jb3NpZ24vc2lnbi92MSJ9","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"Ya3YI55lgnBWoytC1DRNPEtn9EnJK9F0De0ihUxJGTtFxT//k7VKcYS121UAkW/e69rZwHkc6cpYW6Co3mR1BQ=="}]}}',
  },
];

for (const { kind, pem, bundle } of recorded) {
  test(`a bundle that cosign made with a key of ${kind}`, async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'gantry-policy-'));
    try {
      const file = path.join(dir, 'cosign.pub');
      writeFileSync(file, pem);
      const source = new Signatures();
      source.bundle(JSON.parse(bundle), 'application/vnd.oci.empty.v1+json');
      const verifier = new PolicyVerifier({
        rules: readRules([{ repositories: ['**'], action: 'require-signature', keys: [file] }]),
        defaultAction: 'allow',
        timeoutMs: 10_000,
      });
      const digest = 'sha256:ce661afa8f0c2754cd920a985222e1cf56ab06b7bebc20d96c2dc1af8585d0f5';
      const judge = (of: string) =>
        verifier.verifyImage({ namespace: 'default' }, name, { ...image, digest: of }, source);
      const { ok, reason } = await judge(digest);
      assert.ok(ok, reason);
      assert.equal((await judge(image.digest)).ok, false);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
}
