import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../core/log/log-writer.ts';
import { type Plugin, PluginSkip, pluginType } from '../core/plugin/plugin.ts';
import { PluginSet } from './plugin-set.ts';

const A = pluginType<{ name: string }>('a');

function setOf(plugins: Plugin[], options: { required?: string[]; disabled?: string[] } = {}): PluginSet {
  return new PluginSet({
    plugins,
    required: options.required ?? [],
    disabled: options.disabled ?? [],
    root: '/root-dir',
    state: '/state-dir',
    daemon: {} as never,
    log: createLogger({ write: () => {} }),
    config: () => ({}),
  });
}

test('skip and error are kept apart, and passed on to what depends on them', async () => {
  const set = setOf([
    {
      type: A,
      id: 'skips',
      init: () => {
        throw new PluginSkip('no kernel for it');
      },
    },
    { type: 'b', id: 'needs', requires: ['a'], init: (context) => context.get(A, 'skips') },
    {
      type: 'c',
      id: 'breaks',
      init: () => {
        throw new Error('disk on fire');
      },
    },
    { type: 'd', id: 'needs', requires: ['c'], init: (context) => context.get(pluginType('c')) },
    { type: 'e', id: 'fine', init: () => ({}) },
  ]);
  await set.init();
  assert.deepEqual(
    set.statuses().map(({ type, error }) => [type, error?.skip, error?.message]),
    [
      ['a', true, 'no kernel for it'],
      ['b', true, 'plugin a.skips did not start: no kernel for it'],
      ['c', false, 'disk on fire'],
      ['d', false, 'plugin c.breaks did not start: disk on fire'],
      ['e', undefined, undefined],
    ],
  );
});

test('a required plugin that fails stops the start with its reason; one that is missing too', async () => {
  const failing: Plugin = {
    type: 'c',
    id: 'x',
    init: () => {
      throw new Error('no');
    },
  };
  await assert.rejects(setOf([failing], { required: ['c.x'] }).init(), /load required plugin c\.x: no/);
  assert.throws(
    () => setOf([failing], { required: ['c.x'], disabled: ['c.x'] }),
    /required plugin c\.x is not included/,
  );
});

test('instances are found by type, directories named after the plugin, closing runs backwards', async () => {
  const closed: string[] = [];
  const make = (id: string): Plugin => ({
    type: A,
    id,
    init: (context) => {
      assert.equal(context.root, `/root-dir/a.${id}`);
      assert.equal(context.state, `/state-dir/a.${id}`);
      context.onClose(() => void closed.push(id));
      context.onClose(() => Promise.reject(new Error('does not hold up the others')));
      return { name: id };
    },
  });
  const set = setOf([make('one'), make('two'), make('off')], { disabled: ['a.off'] });
  await set.init();
  assert.deepEqual([...set.all(A).keys()], ['one', 'two']);
  assert.equal(set.get(A, 'two').name, 'two');
  assert.throws(() => set.get(A), /more than one plugin of type a: one, two/);
  assert.throws(() => set.get(A, 'off'), /no plugins registered for a\.off/);
  await set.close();
  assert.deepEqual(closed, ['two', 'one']);
});
