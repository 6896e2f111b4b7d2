import assert from 'node:assert/strict';
import { jsonAny, TypeUrl } from '@gantry/api';
import type { Connection } from './connection.ts';
import type { Book, LabelPlan } from './ledger.ts';
import type { Random } from './random.ts';

/** Records that have no bytes on disk: made, changed and deleted, each with a label that tells the last change. */

interface Kind {
  create(connection: Connection, id: string, labels: Record<string, string>): Promise<unknown>;
  update(connection: Connection, id: string, labels: Record<string, string>): Promise<unknown>;
  remove(connection: Connection, id: string): Promise<unknown>;
  /** Labels of all that there are, by id. */
  list(connection: Connection): Promise<Map<string, Record<string, string>>>;
}

const target = {
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  digest: `sha256:${'5'.repeat(64)}`,
  size: 5n,
};
const runtime = { name: 'io.containerd.runc.v2' };
const spec = jsonAny(TypeUrl.RuntimeSpec, '{}');
const updateMask = { paths: ['labels'] };
const byId = <T>(items: readonly T[], id: (item: T) => string, labels: (item: T) => Record<string, string>) =>
  new Map(items.map((item) => [id(item), labels(item)]));

const kinds: Record<string, Kind> = {
  image: {
    create: ({ images }, name, labels) => images.create({ image: { name, labels, target } }),
    update: ({ images }, name, labels) => images.update({ image: { name, labels, target }, updateMask }),
    remove: ({ images }, name) => images.delete({ name }),
    list: async ({ images }) =>
      byId(
        (await images.list({})).images,
        ({ name }) => name,
        ({ labels }) => labels,
      ),
  },
  container: {
    create: ({ containers }, id, labels) => containers.create({ container: { id, labels, runtime, spec } }),
    update: ({ containers }, id, labels) => containers.update({ container: { id, labels }, updateMask }),
    remove: ({ containers }, id) => containers.delete({ id }),
    list: async ({ containers }) =>
      byId(
        (await containers.list({})).containers,
        ({ id }) => id,
        ({ labels }) => labels,
      ),
  },
  namespace: {
    create: ({ namespaces }, name, labels) => namespaces.create({ namespace: { name, labels } }),
    update: ({ namespaces }, name, labels) => namespaces.update({ namespace: { name, labels }, updateMask }),
    remove: ({ namespaces }, name) => namespaces.delete({ name }),
    list: async ({ namespaces }) =>
      byId(
        (await namespaces.list({})).namespaces.filter(({ name }) => name.startsWith('records-')),
        ({ name }) => name,
        ({ labels }) => labels,
      ),
  },
  sandbox: {
    create: ({ sandboxes }, sandboxId, labels) => sandboxes.create({ sandbox: { sandboxId, labels, runtime } }),
    update: ({ sandboxes }, sandboxId, labels) =>
      sandboxes.update({ sandbox: { sandboxId, labels, runtime }, fields: ['labels'] }),
    remove: ({ sandboxes }, sandboxId) => sandboxes.delete({ sandboxId }),
    list: async ({ sandboxes }) =>
      byId(
        (await sandboxes.list({})).list,
        ({ sandboxId }) => sandboxId,
        ({ labels }) => labels,
      ),
  },
};

/** One record's life, or its beginning. */
export async function recordLife(
  connection: Connection,
  book: Book<LabelPlan>,
  random: Random,
  id: string,
): Promise<void> {
  const name = random.pick(Object.keys(kinds));
  const kind = kinds[name]!;
  const key = `${name}/${id}`;
  await book.make(key, { change: '0' }, () => kind.create(connection, id, { change: '0' }));
  for (let change = 1; change <= random.between(0, 4); change++) {
    const plan: LabelPlan = { change: String(change), before: String(change - 1) };
    await book.make(key, plan, () => kind.update(connection, id, { change: plan.change }));
  }
  if (random.chance(0.7)) await book.remove(key, () => kind.remove(connection, id));
}

/** What was answered is there, with the last change or one that was under way, and nothing else is. */
export async function checkRecords(connection: Connection, book: Book<LabelPlan>): Promise<void> {
  for (const [name, kind] of Object.entries(kinds)) {
    const there = await kind.list(connection);
    for (const [key, { fate, detail }] of book.entries) {
      if (!key.startsWith(`${name}/`)) continue;
      const labels = there.get(key.slice(name.length + 1));
      there.delete(key.slice(name.length + 1));
      if (fate === 'there') assert.equal(labels?.['change'], detail.change, key);
      else if (labels) assert.ok([detail.change, detail.before].includes(labels['change']), key);
      if (labels) detail.change = labels['change'] ?? '';
      book.settle(key, labels !== undefined);
    }
    assert.deepEqual([...there.keys()], [], `${name}: nobody's`);
  }
}

/** Ends the lives that `recordLife` left. */
export async function removeRecords(connection: Connection, book: Book<LabelPlan>): Promise<void> {
  for (const key of book.ids()) {
    const [name = '', id = ''] = key.split('/');
    await book.remove(key, () => kinds[name]!.remove(connection, id));
  }
}
