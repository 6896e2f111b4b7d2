import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imageOf, matchesImage } from './match-image.ts';

test('patterns as the kubelet reads them', () => {
  const cases: [string, string, boolean][] = [
    ['*.dkr.ecr.*.amazonaws.com', '1234.dkr.ecr.us-east-1.amazonaws.com/app', true],
    ['*.registry.io', 'registry.io', false],
    ['*.registry.io', 'foo.registry.io/app', true],
    ['*.registry.io', 'a.foo.registry.io/app', false],
    ['*.*.registry.io', 'a.foo.registry.io/app', true],
    ['app*.k8s.io', 'app1.k8s.io/x', true],
    ['registry.io:8080/path', 'registry.io:8080/path/app', true],
    ['registry.io:8080/path', 'registry.io/path/app', false],
    ['registry.io', 'registry.io:8080/app', false],
    ['registry.io/foo', 'registry.io/foobar', true],
    ['registry.io/foo', 'registry.io/bar', false],
    ['REGISTRY.io', 'registry.IO/x', true],
    ['reg+stry.io', 'reggstry.io/x', false],
    ['docker.io', 'docker.io/library/busybox', true],
  ];
  for (const [pattern, image, expected] of cases)
    assert.equal(matchesImage(pattern, image), expected, `${pattern} ${image}`);
});

test('the image is named after the host that asks', () => {
  const reference = 'docker.io/library/busybox:1';
  assert.equal(imageOf({ host: 'registry-1.docker.io', reference }), 'docker.io/library/busybox');
  assert.equal(imageOf({ host: 'mirror.example.com:5000', reference }), 'mirror.example.com:5000/library/busybox');
  assert.equal(imageOf({ host: 'a.example.com' }), 'a.example.com');
  assert.equal(imageOf({ host: 'a.example.com', reference: 'a.example.com/x/y@sha256:0' }), 'a.example.com/x/y');
});
