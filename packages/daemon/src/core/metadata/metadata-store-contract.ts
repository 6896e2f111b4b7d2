import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Key, MetadataStore } from './metadata-store.ts';

export interface MetadataStoreUnderTest {
  store: MetadataStore;
  /** Closes it and opens it again on the same data. */
  reopen(): Promise<MetadataStore>;
  close(): Promise<void>;
}

/** What every MetadataStore has to do. Call it in a test file with a way to open a fresh one. */
export function metadataStoreContract(name: string, open: () => Promise<MetadataStoreUnderTest>): void {
  describe(`metadata store contract: ${name}`, () => {
    let under: MetadataStoreUnderTest;
    let store: MetadataStore;
    beforeEach(async () => {
      under = await open();
      store = under.store;
    });
    afterEach(() => under.close());

    const listed = (prefix: Key): Key[] => store.view((tx) => [...tx.list(prefix)].map(({ key }) => key));

    it('keeps values of every kind, also over a restart', async () => {
      const value = {
        text: 'ümlaut \u0000',
        big: 1n << 62n,
        negative: -(1n << 40n),
        large: 2 ** 50,
        fraction: 0.5,
        yes: true,
        list: [1, 'a', null],
        nested: { labels: { 'a.b/c': 'd', '': 'empty' } },
      };
      const bytes = new Uint8Array([0, 1, 255]);
      await store.update((tx) => tx.put(['a', 'b'], { ...value, bytes }));
      const check = (from: MetadataStore): void => {
        const { bytes: found, ...rest } = from.view((tx) => tx.get<typeof value & { bytes: Uint8Array }>(['a', 'b']))!;
        assert.deepEqual(rest, value);
        assert.deepEqual([...found], [0, 1, 255]);
      };
      check(store);
      check(await under.reopen());
    });

    it('does not let bytes of one read change with the next', async () => {
      await store.update((tx) => {
        tx.put(['one'], { bytes: Buffer.alloc(64, 1) });
        tx.put(['two'], { bytes: Buffer.alloc(64, 2) });
      });
      const one = store.view((tx) => tx.get<{ bytes: Uint8Array }>(['one']))!;
      store.view((tx) => tx.get(['two']));
      assert.ok(one.bytes.every((byte) => byte === 1));
    });

    it('sees its own writes in a transaction, and answers what the function does', async () => {
      const seen = await store.update((tx) => {
        tx.put(['k'], 1);
        const before = tx.get(['k']);
        const removed = [tx.remove(['k']), tx.remove(['k'])];
        return { before, removed, after: tx.get(['k']), has: tx.has(['k']) };
      });
      assert.deepEqual(seen, { before: 1, removed: [true, false], after: undefined, has: false });
    });

    it('shows a change at once after the update', async () => {
      for (let round = 0; round < 200; round++) {
        const before = store.view((tx) => tx.get<number>(['n']));
        const done = store.update((tx) => tx.put(['n'], round));
        assert.equal(before, round === 0 ? undefined : round - 1);
        await done;
        assert.equal(
          store.view((tx) => tx.get(['n'])),
          round,
        );
      }
    });

    it('undoes everything when the function throws, and nothing of its neighbours', async () => {
      await store.update((tx) => tx.put(['kept'], 'old'));
      let called = false;
      const first = store.update((tx) => tx.put(['first'], 1));
      const broken = store.update((tx) => {
        tx.put(['kept'], 'new');
        tx.put(['other'], 1);
        tx.remove(['first']);
        tx.afterCommit(() => {
          called = true;
        });
        throw new Error('no');
      });
      const last = store.update((tx) => tx.put(['last'], 1));
      await assert.rejects(broken, /^Error: no$/);
      await Promise.all([first, last]);
      assert.deepEqual(
        listed([]).filter(([head]) => head !== 'schema-version'),
        [['first'], ['kept'], ['last']],
      );
      assert.equal(
        store.view((tx) => tx.get(['kept'])),
        'old',
      );
      assert.equal(called, false);
    });

    it('calls afterCommit in order, after the change is to be seen', async () => {
      const calls: unknown[] = [];
      await store.update((tx) => {
        tx.put(['x'], 1);
        tx.afterCommit(() => calls.push(store.view((view) => view.get(['x']))));
        tx.afterCommit(() => calls.push('second'));
      });
      assert.deepEqual(calls, [1, 'second']);
    });

    it('runs updates one after another: no increment is lost', async () => {
      await Promise.all(
        Array.from({ length: 500 }, () =>
          store.update((tx) => tx.put(['count'], (tx.get<number>(['count']) ?? 0) + 1)),
        ),
      );
      assert.equal(
        store.view((tx) => tx.get(['count'])),
        500,
      );
    });

    it('lists by prefix, component by component, in order', async () => {
      await store.update((tx) => {
        for (const key of [
          ['a', 'b'],
          ['a', 'b', 'c'],
          ['a', 'bc'],
          ['a', 'b\u0000', 'x'],
          ['a', 'b\u0001'],
          ['ab'],
          ['a'],
        ]) {
          tx.put(key, key.length);
        }
      });
      assert.deepEqual(listed(['a']), [
        ['a', 'b'],
        ['a', 'b', 'c'],
        ['a', 'b\u0000', 'x'],
        ['a', 'b\u0001'],
        ['a', 'bc'],
      ]);
      assert.deepEqual(listed(['a', 'b']), [['a', 'b', 'c']]);
      assert.deepEqual(listed(['zz']), []);
      const children = store.view((tx) => [...tx.children(['a'])]);
      assert.deepEqual(children, ['b', 'b\u0000', 'b\u0001', 'bc']);
      await store.update((tx) => tx.removeAll(['a']));
      assert.deepEqual(listed(['a']), []);
      assert.equal(
        store.view((tx) => tx.get(['a'])),
        1,
      );
    });

    it('shows steps at once, in order with other updates, and keeps them when flushed', async () => {
      await store.update((tx) => tx.put(['step'], 1), { step: true });
      assert.equal(
        store.view((tx) => tx.get(['step'])),
        1,
      );
      await store.update((tx) => tx.put(['after'], (tx.get<number>(['step']) ?? 0) + 1));
      await store.update((tx) => tx.put(['step'], 3), { step: true });
      await assert.rejects(
        store.update(
          (tx) => {
            tx.put(['step'], 4);
            throw new Error('no');
          },
          { step: true },
        ),
        /no/,
      );
      await store.flush();
      const again = await under.reopen();
      assert.deepEqual(
        again.view((tx) => [tx.get(['step']), tx.get(['after'])]),
        [3, 2],
      );
    });

    it('takes keys of any length', async () => {
      const names = [2000, 5000, 100_000].map((length) => 'long/'.repeat(length / 5));
      const twins = ['1', '2'].map((end) => `${'x'.repeat(3000)}${end}`);
      await store.update((tx) => {
        for (const name of [...names, ...twins]) tx.put(['image', 'ns', name], name.length);
        tx.put(['image', 'ns', twins[0]!, 'below'], 'below');
      });
      for (const name of [...names, ...twins]) {
        assert.equal(
          store.view((tx) => tx.get(['image', 'ns', name])),
          name.length,
        );
      }
      const found = listed(['image', 'ns']).map((key) => key[2]!);
      assert.deepEqual(new Set(found), new Set([...names, ...twins]));
      assert.deepEqual(new Set(store.view((tx) => [...tx.children(['image', 'ns'])])), new Set([...names, ...twins]));
      assert.deepEqual(listed(['image', 'ns', twins[0]!]), [['image', 'ns', twins[0]!, 'below']]);
      assert.equal(await store.update((tx) => tx.remove(['image', 'ns', twins[1]!])), true);
      assert.equal(
        store.view((tx) => tx.has(['image', 'ns', twins[0]!])),
        true,
      );
    });

    it('refuses to work when closed', async () => {
      await store.close();
      assert.throws(() => store.view((tx) => tx.get(['a'])), /closed/);
      await assert.rejects(
        store.update((tx) => tx.put(['a'], 1)),
        /closed/,
      );
      await store.close();
    });
  });
}
