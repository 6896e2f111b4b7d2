import { Code, hasCode, StatusError } from '@gantry/api';
import {
  type Descriptor,
  digestOfReference,
  isIndexType,
  isManifestType,
  type Reference,
  repositoryOf,
  tagOf,
} from '@gantry/oci';
import type { HostClient, RegistryRequest } from './host-client.ts';
import { AuthorizationError } from './http-error.ts';
import { discard, type HttpResponse, header } from './http-transport.ts';
import { pause, rest } from './patience.ts';
import { acceptPushed, unexpectedAnswer } from './push-answer.ts';
import { BlobUpload } from './push-upload.ts';
import { addToReferrersTag } from './referrers-tag.ts';

/** Pushing: blobs by a mount from another repository or an upload, manifests by a PUT; what is there already is left alone. */
export interface PushOptions {
  /** Opens the content at its start; called again for each try. */
  open: () => AsyncIterable<Uint8Array>;
  /** A repository at the same registry that has the blob. */
  mountFrom?: string | undefined;
  /** Told of the bytes sent so far. */
  onProgress?: (sent: number) => void;
  signal?: AbortSignal | undefined;
}

/** What it took: the registry had it, could mount it, or was sent it. */
export type PushOutcome = 'exists' | 'mounted' | 'pushed';

/** One thing to be pushed to one endpoint. */
export interface PushTarget {
  host: HostClient;
  reference: Reference;
  /** The reference as its user wrote it. */
  image: string;
  descriptor: Descriptor;
  /** Of every request; `ns` where the endpoint stands for a registry. */
  query: Record<string, string>;
  options: PushOptions;
}

const maxAttempts = 3;

export async function pushDescriptor(target: PushTarget): Promise<PushOutcome> {
  const { signal } = target.options;
  const { mediaType } = target.descriptor;
  const one = new Push(target);
  for (let attempt = 1; ; attempt++) {
    try {
      return isManifestType(mediaType) || isIndexType(mediaType) ? await one.manifest() : await one.blob();
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof AuthorizationError) {
        throw StatusError.wrap(error, 'push access denied, repository does not exist or may require authorization');
      }
      if (attempt === maxAttempts || !hasCode(error, Code.Unavailable)) throw error;
      await rest(2 * pause(attempt + 1), signal);
    }
  }
}

/** Whether the endpoint has it; manifests by their digest. */
export async function holdsDescriptor(target: PushTarget): Promise<boolean> {
  return await new Push(target).there();
}

class Push {
  readonly #target: PushTarget;
  readonly #repository: string;

  constructor(target: PushTarget) {
    this.#target = target;
    this.#repository = repositoryOf(target.reference);
  }

  async there(): Promise<boolean> {
    const { digest, mediaType } = this.#target.descriptor;
    const manifest = isManifestType(mediaType) || isIndexType(mediaType);
    const path = `/${this.#repository}/${manifest ? 'manifests' : 'blobs'}/${digest}`;
    return await this.#exists(path, manifest ? { accept: `${mediaType}, */*` } : {});
  }

  async manifest(): Promise<PushOutcome> {
    const { descriptor, reference, options } = this.#target;
    const { digest, mediaType } = descriptor;
    const tag = tagOf(reference);
    const named = digestOfReference(reference);
    const name = tag !== '' && (named === '' || named === digest) ? tag : digest;
    const path = `/${this.#repository}/manifests/${name}`;
    if (await this.#exists(path, { accept: `${mediaType}, */*` })) return 'exists';
    // Manifests are small; whole in memory they can be sent again without reading them again.
    const chunks: Uint8Array[] = [];
    for await (const chunk of options.open()) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const response = await this.#send({ method: 'PUT', path, headers: { 'content-type': mediaType }, body });
    // A registry with the referrers API says that it took note of the subject.
    const noted = header(response, 'oci-subject') !== undefined;
    await acceptPushed(response, 'PUT', digest);
    if (!noted) await addToReferrersTag(this.#target, body, (request) => this.#send(request));
    options.onProgress?.(body.length);
    return 'pushed';
  }

  async blob(): Promise<PushOutcome> {
    const { digest } = this.#target.descriptor;
    const { mountFrom } = this.#target.options;
    if (await this.#exists(`/${this.#repository}/blobs/${digest}`, {})) return 'exists';
    let started = mountFrom === undefined ? undefined : await this.#mount(mountFrom);
    if (started?.status === 201) {
      await discard(started);
      return 'mounted';
    }
    if (started && started.status !== 202) {
      await discard(started);
      started = undefined;
    }
    const upload = new BlobUpload(this.#target, (request) => this.#send(request));
    await upload.run(started);
    return 'pushed';
  }

  /** An answer other than 201 or 202 means that it has to be sent; so does a refusal: that repository may be private. */
  async #mount(from: string): Promise<HttpResponse | undefined> {
    const { digest } = this.#target.descriptor;
    try {
      return await this.#send(
        {
          method: 'POST',
          path: `/${this.#repository}/blobs/uploads/`,
          query: { mount: digest, from },
          headers: { 'content-length': '0' },
        },
        [`repository:${from}:pull`],
      );
    } catch (error) {
      if (error instanceof AuthorizationError) return undefined;
      throw error;
    }
  }

  async #exists(path: string, headers: Record<string, string>): Promise<boolean> {
    const { digest } = this.#target.descriptor;
    let response: HttpResponse;
    try {
      response = await this.#send({ method: 'HEAD', path, headers });
    } catch (error) {
      // Some may push and not look.
      if (error instanceof AuthorizationError) return false;
      throw error;
    }
    await discard(response);
    if (response.status === 404) return false;
    // A HEAD has no body to say why.
    if (response.status === 403)
      throw await unexpectedAnswer(await this.#send({ method: 'GET', path, headers }), 'GET');
    if (response.status > 299) throw await unexpectedAnswer(response, 'HEAD');
    const there = header(response, 'docker-content-digest');
    // A tag may be there and mean something else.
    return path.endsWith(`/${digest}`) ? there === undefined || there === digest : there === digest;
  }

  /** With the rights that a push needs, and the query that the endpoint wants. */
  #send(request: Omit<RegistryRequest, 'scopes'>, more: readonly string[] = []): Promise<HttpResponse> {
    const { host, image, query, options } = this.#target;
    return host.send({
      patient: true,
      reference: image,
      signal: options.signal,
      ...request,
      query: { ...request.query, ...query },
      scopes: [`repository:${this.#repository}:pull,push`, ...more],
    });
  }
}
