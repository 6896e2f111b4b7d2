import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chainIds, digestOf, isDigest, parseDigest } from './digest.ts';
import {
  childLabels,
  childrenOf,
  descriptorFromJson,
  descriptorToJson,
  isLayerType,
  layerCompression,
  MediaType,
  parseIndex,
  parseManifest,
  refKey,
} from './image.ts';
import { parseJson, stringifyJson } from './json-codec.ts';

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

test('digests', () => {
  assert.equal(digestOf('abc'), 'sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  assert.deepEqual(parseDigest(digest('a')), { algorithm: 'sha256', encoded: 'a'.repeat(64) });
  assert.ok(isDigest(`sha512:${'0'.repeat(128)}`));
  assert.throws(() => parseDigest('sha256:12'), /invalid checksum digest length/);
  assert.throws(() => parseDigest(`md5:${'0'.repeat(32)}`), /unsupported digest algorithm/);
  assert.throws(() => parseDigest(digest('Z')), /invalid checksum digest format/);
  assert.throws(() => parseDigest('../../etc'), /invalid checksum digest format/);
});

test('chain ids', () => {
  assert.deepEqual(chainIds([]), []);
  const [first, second] = chainIds([digest('a'), digest('b')]);
  assert.equal(first, digest('a'));
  assert.equal(second, digestOf(`${digest('a')} ${digest('b')}`));
});

test('children, their labels and their names', () => {
  const manifest = {
    schemaVersion: 2,
    config: { mediaType: MediaType.OciConfig, digest: digest('c'), size: 1 },
    layers: [
      { mediaType: MediaType.OciLayerGzip, digest: digest('1'), size: 2 },
      { mediaType: MediaType.OciLayerZstd, digest: digest('2'), size: 3 },
      { mediaType: 'application/x-unknown', digest: digest('3'), size: 4 },
    ],
  };
  const self = { mediaType: MediaType.OciManifest, digest: digest('0'), size: 0 };
  const children = childrenOf(self, bytes(manifest));
  assert.deepEqual(childLabels(children), {
    'containerd.io/gc.ref.content.config': digest('c'),
    'containerd.io/gc.ref.content.l.0': digest('1'),
    'containerd.io/gc.ref.content.l.1': digest('2'),
    'containerd.io/gc.ref.content.0': digest('3'),
  });
  assert.deepEqual(children.map(refKey), [
    `config-${digest('c')}`,
    `layer-${digest('1')}`,
    `layer-${digest('2')}`,
    `unknown-${digest('3')}`,
  ]);
  assert.deepEqual(childrenOf({ ...self, mediaType: MediaType.OciConfig }, bytes({})), []);
});

test('a document that is two things at once is refused', () => {
  const config = { mediaType: MediaType.OciConfig, digest: digest('c'), size: 1 };
  assert.throws(
    () => parseManifest(bytes({ config, layers: [], manifests: [] }), MediaType.OciManifest),
    /expected manifest but found index/,
  );
  assert.throws(() => parseIndex(bytes({ manifests: [], layers: [] }), MediaType.OciIndex), /expected index but found/);
  assert.throws(() => parseIndex(bytes({ fsLayers: [] }), MediaType.OciIndex), /schema 1 not supported/);
  assert.throws(() => parseManifest(bytes({ layers: [] }), MediaType.OciManifest), /no digest/);
  assert.throws(() => parseManifest(new TextEncoder().encode('{'), MediaType.OciManifest), /invalid JSON/);
  assert.deepEqual(parseIndex(bytes({ manifests: null }), MediaType.OciIndex).manifests, []);
});

test('descriptors keep what JSON has', () => {
  const json = {
    mediaType: MediaType.OciManifest,
    digest: digest('a'),
    size: 5,
    annotations: { a: 'b' },
    platform: { architecture: 'amd64', os: 'windows', 'os.version': '10.0', 'os.features': ['x'] },
    'x-own': 1,
  };
  const descriptor = descriptorFromJson(json);
  assert.deepEqual(descriptor.platform, { os: 'windows', architecture: 'amd64', osVersion: '10.0', osFeatures: ['x'] });
  assert.deepEqual(descriptorToJson(descriptor), json);
  assert.throws(() => descriptorFromJson({ digest: digest('a'), size: 1.5 }), /invalid size/);
});

test('layer types and their compression', () => {
  assert.ok(isLayerType(`${MediaType.DockerLayerGzip}+encrypted`));
  assert.ok(!isLayerType(MediaType.OciConfig));
  assert.equal(layerCompression(MediaType.OciLayerGzip), 'gzip');
  assert.equal(layerCompression(MediaType.OciLayerZstd), 'zstd');
  assert.equal(layerCompression(MediaType.OciLayer), 'none');
  assert.equal(layerCompression(MediaType.DockerLayer), 'detect');
  assert.throws(() => layerCompression(`${MediaType.OciLayerGzip}+encrypted`.replace('+gzip', '')), /unrecognised/);
});

test('64-bit numbers survive', () => {
  const text = '{"limit":9223372036854775807,"small":1,"float":1.5,"text":"12345678901234567890"}';
  const value = parseJson<Record<string, unknown>>(text);
  assert.equal(value.limit, 9223372036854775807n);
  assert.equal(value.small, 1);
  assert.equal(stringifyJson(value), text);
  assert.equal(stringifyJson({ a: -9223372036854775808n }), '{"a":-9223372036854775808}');
});
