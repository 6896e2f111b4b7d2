import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Plugin } from '../core/plugin/plugin.ts';
import { orderPlugins, pluginUri } from './plugin-graph.ts';

const plugin = (type: string, id: string, ...requires: string[]): Plugin => ({ type, id, requires, init: () => ({}) });
const order = (...plugins: Plugin[]) => orderPlugins(plugins).map(pluginUri);

test('requirements come first, the rest keeps its order', () => {
  assert.deepEqual(
    order(
      plugin('grpc', 'a', 'meta'),
      plugin('last', 'z', '*'),
      plugin('meta', 'm', 'snap', 'content.c'),
      plugin('snap', 's2'),
      plugin('snap', 's1'),
      plugin('content', 'c'),
    ),
    ['snap.s2', 'snap.s1', 'content.c', 'meta.m', 'grpc.a', 'last.z'],
  );
});

test('a plugin may require its own type: the others of it', () => {
  assert.deepEqual(order(plugin('internal', 'a', 'internal.b'), plugin('internal', 'b')), ['internal.b', 'internal.a']);
});

test('a circle and a double are errors that name the plugins', () => {
  assert.throws(() => order(plugin('a', '1', 'b'), plugin('b', '1', 'a')), /circle: a\.1 -> b\.1 -> a\.1/);
  assert.throws(() => order(plugin('a', '1'), plugin('a', '1')), /plugin a\.1 is in the list twice/);
});
