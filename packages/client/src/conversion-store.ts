import { failedPrecondition } from '@gantry/api';
import { type Descriptor, digestOf, encodeJson, maxManifestSize, parseJson } from '@gantry/oci';
import type { Content } from './content.ts';
import type { Lease } from './leases.ts';

/** A descriptor as it stands in a document, with whatever fields it has there. */
export interface RawDescriptor extends Record<string, unknown> {
  mediaType?: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

/** A document of an image, as bytes and as JSON whose unknown fields and long numbers are kept. */
export interface StoredDocument {
  readonly bytes: Uint8Array;
  readonly json: Record<string, unknown>;
  readonly labels: Readonly<Record<string, string>>;
}

const refPrefix = 'containerd.io/gc.ref.content';

/** The documents of a conversion: read from and written to the content store, and kept by its lease. */
export class ConversionStore {
  readonly content: Content;
  readonly #lease: Lease;
  readonly #signal: AbortSignal;

  constructor(content: Content, lease: Lease, signal: AbortSignal) {
    this.content = content;
    this.#lease = lease;
    this.#signal = signal;
  }

  /** @throws StatusError NotFound; FailedPrecondition for one that is too large */
  async read({ digest, mediaType = '' }: Pick<RawDescriptor, 'digest' | 'mediaType'>): Promise<StoredDocument> {
    const call = { signal: this.#signal };
    const { size, labels } = await this.content.info(digest, call);
    if (size > maxManifestSize)
      throw failedPrecondition(`${digest} (${mediaType}) has ${size} bytes; ${maxManifestSize} are allowed`);
    const bytes = await this.content.readAll(digest, call);
    return { bytes, json: parseJson<Record<string, unknown>>(bytes), labels };
  }

  /**
   * Writes a changed document.
   * @param old what it was made from: its labels are kept, but for those that hold what it refers to no longer
   * @param before what the old document refers to; after: labels for what the new one refers to
   */
  async write(
    old: StoredDocument,
    json: Record<string, unknown>,
    before: readonly RawDescriptor[],
    after: Record<string, string>,
  ): Promise<Pick<Descriptor, 'digest' | 'size'>> {
    const call = { signal: this.#signal };
    const gone = new Set(before.map(({ digest }) => digest));
    const labels: Record<string, string> = {};
    for (const [key, value] of Object.entries(old.labels))
      if (!key.startsWith(refPrefix) || !gone.has(value)) labels[key] = value;
    Object.assign(labels, after);
    const bytes = encodeJson(json);
    const expected = digestOf(bytes);
    const written = await this.content.ingest(`converter-write-json-${expected}`, bytes, { expected, labels }, call);
    await this.hold(expected);
    // One that was there already has its own labels.
    await this.content.setLabels(expected, labels, call);
    return written;
  }

  /** Keeps a blob that was there already, too, until the conversion ends. */
  async hold(digest: string): Promise<void> {
    await this.#lease.add({ id: digest, type: 'content' }, { signal: this.#signal });
  }
}
