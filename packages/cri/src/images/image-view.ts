import { Code, hasCode } from '@gantry/api';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { Image, ImageStore } from '@gantry/daemon/core/images/image-store.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { type Descriptor, isDigest } from '@gantry/oci';
import { CriLabel } from '../labels.ts';
import { nanosOf } from '../time.ts';
import type { CriImage } from './cri-image.ts';
import { type ImageFacts, ImageFactsReader } from './image-facts.ts';

interface Entry {
  record: Image;
  /** undefined: not whole, or for other machines only. */
  facts: ImageFacts | undefined;
}

/**
 * The namespace's image records as CRI sees them: one image for each id. All are read once, and from then on those that are said to have
 * changed, when somebody next asks; the records themselves stay the truth.
 */
export class ImageView {
  readonly #store: ImageStore;
  readonly #facts: ImageFactsReader;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  /** Names of entries without facts: their content may come later. */
  readonly #incomplete = new Set<string>();
  /** Names of the records of each id. */
  readonly #names = new Map<string, Set<string>>();
  readonly #images = new Map<string, CriImage>();
  /** Names to be read again. */
  #stale = new Set<string>();
  #hasAll = false;
  #reading: Promise<void> | undefined;
  #list: CriImage[] | undefined;

  constructor(options: { images: ImageStore; content: ContentStore; log: Logger }) {
    this.#store = options.images;
    this.#facts = new ImageFactsReader(options.content);
    this.#log = options.log;
  }

  /** The record of that name has come, changed or gone. */
  changed(name: string): void {
    this.#stale.add(name);
    this.contentCame();
  }

  /** What was not whole may be now. */
  contentCame(): void {
    for (const name of this.#incomplete) this.#stale.add(name);
  }

  /** What a target comes to. @throws NotFound if a part of it that this machine needs is not there */
  facts(ctx: RequestContext, target: Descriptor): Promise<ImageFacts> {
    return this.#facts.read(ctx, target);
  }

  /** Settles when everything that was changed before the call can be seen in the methods below. */
  async refresh({ namespace }: RequestContext): Promise<void> {
    while (!this.#hasAll || this.#stale.size > 0 || this.#reading) {
      // Whoever began it may give up; the others wait for the same.
      this.#reading ??= this.#read({ namespace }).finally(() => {
        this.#reading = undefined;
      });
      await this.#reading;
    }
  }

  /** In order of their first names. */
  list(): CriImage[] {
    this.#list ??= [...this.#images]
      .map(([id, image]) => ({ image, first: firstOf(this.#names.get(id)!) }))
      .sort((a, b) => (a.first < b.first ? -1 : 1))
      .map(({ image }) => image);
    return this.#list;
  }

  byId(id: string): CriImage | undefined {
    return this.#images.get(id);
  }

  byName(name: string): CriImage | undefined {
    const id = this.#entries.get(name)?.facts?.id;
    return id === undefined ? undefined : this.#images.get(id);
  }

  async #read(ctx: RequestContext): Promise<void> {
    const names = this.#stale;
    this.#stale = new Set();
    try {
      if (this.#hasAll) {
        for (const name of names) await this.#take(ctx, name, await this.#get(ctx, name));
      } else {
        for (const record of await this.#store.list(ctx)) await this.#take(ctx, record.name, record);
        this.#hasAll = true;
      }
    } catch (error) {
      for (const name of names) this.#stale.add(name);
      throw error;
    }
  }

  async #get(ctx: RequestContext, name: string): Promise<Image | undefined> {
    // An error costs more than the record.
    if (this.#store.find) return await this.#store.find(ctx, name);
    try {
      return await this.#store.get(ctx, name);
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  async #take(ctx: RequestContext, name: string, record: Image | undefined): Promise<void> {
    const facts = record && (await this.#factsOf(ctx, record));
    const before = this.#entries.get(name);
    if (before && record && before.facts === facts && looksTheSame(before.record, record)) return;
    if (record) this.#entries.set(name, { record, facts });
    else this.#entries.delete(name);
    if (record && !facts) this.#incomplete.add(name);
    else this.#incomplete.delete(name);
    if (before && before.record.target.digest !== record?.target.digest) this.#forgetFacts();
    if (before?.facts && before.facts.id !== facts?.id) {
      this.#names.get(before.facts.id)?.delete(name);
      this.#compose(before.facts.id);
    }
    if (!facts) return;
    const names = this.#names.get(facts.id) ?? new Set();
    this.#names.set(facts.id, names.add(name));
    this.#compose(facts.id);
  }

  #forgetFacts(): void {
    this.#facts.keep(new Set([...this.#entries.values()].map(({ record }) => record.target.digest)));
  }

  /** One that is not whole, or is for other machines only, is none. */
  async #factsOf(ctx: RequestContext, { name, target }: Image): Promise<ImageFacts | undefined> {
    try {
      return await this.#facts.read(ctx, target);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) this.#log.warn('image cannot be read', { error, image: name });
      return undefined;
    }
  }

  /** Puts the image together out of its records, in order of their names. */
  #compose(id: string): void {
    this.#list = undefined;
    const names = [...(this.#names.get(id) ?? [])].sort();
    const entries = names.map((name) => this.#entries.get(name)!);
    const [first] = entries;
    if (!first) {
      this.#names.delete(id);
      this.#images.delete(id);
      return;
    }
    const image: CriImage = {
      ...first.facts!,
      tags: [],
      digests: [],
      pinned: entries.some(({ record }) => record.labels[CriLabel.pinned] === 'pinned'),
      createdAt: nanosOf(first.record.createdAt),
    };
    for (const name of names) if (!isDigest(name)) (name.includes('@') ? image.digests : image.tags).push(name);
    this.#images.set(id, image);
  }
}

function looksTheSame(a: Image, b: Image): boolean {
  return (
    a.target.digest === b.target.digest &&
    a.labels[CriLabel.pinned] === b.labels[CriLabel.pinned] &&
    nanosOf(a.createdAt) === nanosOf(b.createdAt)
  );
}

function firstOf(names: ReadonlySet<string>): string {
  let first: string | undefined;
  for (const name of names) if (first === undefined || name < first) first = name;
  return first ?? '';
}
