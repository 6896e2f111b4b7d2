import { Code, hasCode, invalidArgument, notFound } from '@gantry/api';
import { Annotation, type Descriptor } from '@gantry/oci';
import type { Image, ImageStore } from '../../core/images/image-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { ImageStoreEndpoint, StoreReference } from './endpoints.ts';

/** Makes the image records of a transfer: under the endpoint's name, and those its extra references call for. */

type Record = Pick<Image, 'name' | 'labels' | 'target'>;

/** Creates or replaces the records. @throws NotFound `no image name found` if nothing names this descriptor. */
export async function storeImages(
  ctx: RequestContext,
  images: ImageStore,
  store: ImageStoreEndpoint,
  target: Descriptor,
): Promise<Image[]> {
  return await save(ctx, images, namedImages(store, target));
}

/** The same for a descriptor out of an archive: named by its annotations, matched against the prefix references. */
export async function storeImported(
  ctx: RequestContext,
  images: ImageStore,
  store: ImageStoreEndpoint,
  target: Descriptor,
): Promise<Image[]> {
  return await save(ctx, images, annotatedImages(store, target));
}

function namedImages(store: ImageStoreEndpoint, target: Descriptor): Record[] {
  const records: Record[] = [];
  if (store.name !== '') records.push({ name: store.name, target, labels: store.labels });
  for (const reference of store.extraReferences) {
    if (reference.isPrefix && !reference.addDigest) continue;
    const name = reference.addDigest ? `${reference.name}@${target.digest}` : reference.name;
    records.push({ name, target, labels: extraLabels(store) });
  }
  return records;
}

function annotatedImages(store: ImageStoreEndpoint, target: Descriptor): Record[] {
  const records: Record[] = [];
  const add = (name: string): void => {
    records.push({ name, target, labels: extraLabels(store) });
  };
  for (const reference of store.extraReferences) {
    if (!reference.isPrefix) continue;
    const name = annotatedName(target, reference);
    if (name !== '') add(name);
    if (reference.addDigest && (name === '' || !reference.skipNamedDigest)) add(`${reference.name}@${target.digest}`);
  }
  return records;
}

/** Records besides the named one go when it goes, and hold nothing by themselves. */
function extraLabels(store: ImageStoreEndpoint): { [key: string]: string } {
  if (store.name === '') return store.labels;
  return {
    ...store.labels,
    'containerd.io/gc.bref.image': store.name,
    'containerd.io/gc.expire': new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
  };
}

/** The name by annotation, if it fits the reference; a tag alone is put behind the reference's name. */
function annotatedName(target: Descriptor, reference: StoreReference): string {
  const full = target.annotations?.[Annotation.ImageName] ?? '';
  if (full !== '') return fit(full, reference) === full ? full : '';
  const tag = target.annotations?.[Annotation.RefName] ?? '';
  return tag === '' ? '' : fit(tag, reference);
}

function fit(name: string, reference: StoreReference): string {
  if (reference.name === '') return '';
  if (!/[/:@]/.test(name)) return `${reference.name}:${name}`;
  return reference.allowOverwrite || hasPrefix(name, reference.name) ? name : '';
}

/** Whole components only: `a/b` is no prefix of `a/bc`. */
function hasPrefix(name: string, prefix: string): boolean {
  return name.startsWith(prefix) && (name.length === prefix.length || '/:@'.includes(name[prefix.length] ?? ''));
}

async function save(ctx: RequestContext, images: ImageStore, records: readonly Record[]): Promise<Image[]> {
  if (records.length === 0) throw notFound('no image name found: not found');
  if (records.some(({ name }) => name === '')) throw invalidArgument('image name must not be empty: invalid argument');
  const saved: Image[] = [];
  for (const record of records) saved.push(await createOrUpdate(ctx, images, record));
  return saved;
}

async function createOrUpdate(ctx: RequestContext, images: ImageStore, record: Record): Promise<Image> {
  // Each round lost means that somebody else created or deleted the record in between.
  for (;;) {
    try {
      return await images.create(ctx, record);
    } catch (error) {
      if (!hasCode(error, Code.AlreadyExists)) throw error;
    }
    try {
      return await images.update(ctx, record, []);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw error;
    }
  }
}
