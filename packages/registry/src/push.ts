import { setTimeout as sleep } from 'node:timers/promises';
import { Code, failedPrecondition, hasCode, StatusError } from '@gantry/api';
import {
  type Descriptor,
  digestOfReference,
  formatReference,
  isIndexType,
  isManifestType,
  type Reference,
  repositoryOf,
  tagOf,
} from '@gantry/oci';
import type { HostClient } from './host-client.ts';
import { AuthorizationError, requestFailed, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';

/** Pushing: blobs by one PUT of the whole after a POST, or by a mount from another repository; manifests by a PUT. */
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

const maxAttempts = 3;

export async function pushDescriptor(
  host: HostClient,
  reference: Reference,
  descriptor: Descriptor,
  options: PushOptions,
): Promise<PushOutcome> {
  const one = new Push(host, reference, descriptor, options);
  for (let attempt = 1; ; attempt++) {
    try {
      const { mediaType } = descriptor;
      return isManifestType(mediaType) || isIndexType(mediaType) ? await one.manifest() : await one.blob();
    } catch (error) {
      options.signal?.throwIfAborted();
      if (error instanceof AuthorizationError) {
        throw StatusError.wrap(error, 'push access denied, repository does not exist or may require authorization');
      }
      if (attempt === maxAttempts || !hasCode(error, Code.Unavailable)) throw error;
      await sleep(200 * 2 ** attempt, undefined, { ...(options.signal && { signal: options.signal }) });
    }
  }
}

class Push {
  readonly #host: HostClient;
  readonly #repository: string;
  readonly #reference: Reference;
  readonly #descriptor: Descriptor;
  readonly #options: PushOptions;

  constructor(host: HostClient, reference: Reference, descriptor: Descriptor, options: PushOptions) {
    this.#host = host;
    this.#repository = repositoryOf(reference);
    this.#reference = reference;
    this.#descriptor = descriptor;
    this.#options = options;
  }

  get #scopes(): string[] {
    const { mountFrom } = this.#options;
    const own = `repository:${this.#repository}:pull,push`;
    return mountFrom === undefined ? [own] : [own, `repository:${mountFrom}:pull`];
  }

  async manifest(): Promise<PushOutcome> {
    const { digest, mediaType } = this.#descriptor;
    const tag = tagOf(this.#reference);
    const named = digestOfReference(this.#reference);
    const target = tag !== '' && (named === '' || named === digest) ? tag : digest;
    const path = `/${this.#repository}/manifests/${target}`;
    const accept = { accept: `${mediaType}, */*` };
    if (await this.#exists(path, accept)) return 'exists';
    // Manifests are small; whole in memory they can be sent again without reading them again.
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#options.open()) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const response = await this.#host.send({
      method: 'PUT',
      path,
      headers: { 'content-type': mediaType },
      body,
      scopes: this.#scopes,
      reference: formatReference(this.#reference),
      signal: this.#options.signal,
      patient: true,
    });
    await this.#finish(response, 'PUT');
    this.#options.onProgress?.(body.length);
    return 'pushed';
  }

  async blob(): Promise<PushOutcome> {
    const { digest } = this.#descriptor;
    const { mountFrom, signal } = this.#options;
    if (await this.#exists(`/${this.#repository}/blobs/${digest}`, {})) return 'exists';
    const start = await this.#host.send({
      method: 'POST',
      path: `/${this.#repository}/blobs/uploads/`,
      query: mountFrom === undefined ? {} : { mount: digest, from: mountFrom },
      headers: { 'content-length': '0' },
      scopes: this.#scopes,
      reference: formatReference(this.#reference),
      signal,
      patient: true,
    });
    if (start.status === 201) {
      await discard(start);
      return 'mounted';
    }
    const location = header(start, 'location');
    if (start.status !== 202 || location === undefined) throw await this.#refused(start, 'POST');
    await discard(start);
    const url = new URL(location, start.url);
    url.searchParams.set('digest', digest);
    const response = await this.#host.send({
      method: 'PUT',
      path: url,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(this.#descriptor.size) },
      body: () => this.#counted(),
      scopes: this.#scopes,
      reference: formatReference(this.#reference),
      signal,
    });
    await this.#finish(response, 'PUT');
    return 'pushed';
  }

  async #exists(path: string, headers: Record<string, string>): Promise<boolean> {
    const { digest } = this.#descriptor;
    const { signal } = this.#options;
    const response = await this.#host.send({
      method: 'HEAD',
      path,
      headers,
      scopes: this.#scopes,
      reference: formatReference(this.#reference),
      signal,
      patient: true,
    });
    await discard(response);
    if (response.status === 404) return false;
    if (response.status > 299) {
      throw new UnexpectedStatusError({ method: 'HEAD', url: response.url }, response.status, response.statusText);
    }
    const there = header(response, 'docker-content-digest');
    // A tag may be there and mean something else.
    return path.endsWith(`/${digest}`) ? there === undefined || there === digest : there === digest;
  }

  async *#counted(): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const chunk of this.#options.open()) {
      yield chunk;
      sent += chunk.length;
      this.#options.onProgress?.(sent);
    }
    if (sent !== this.#descriptor.size) {
      throw failedPrecondition(`unexpected size ${sent}, expected ${this.#descriptor.size}: failed precondition`);
    }
  }

  async #finish(response: HttpResponse, method: string): Promise<void> {
    if (response.status !== 200 && response.status !== 201 && response.status !== 204) {
      throw await this.#refused(response, method);
    }
    const actual = header(response, 'docker-content-digest');
    await discard(response);
    if (actual !== undefined && actual !== this.#descriptor.digest) {
      throw failedPrecondition(`got digest ${actual}, expected ${this.#descriptor.digest}: failed precondition`);
    }
  }

  async #refused(response: HttpResponse, method: string): Promise<Error> {
    const request = { method, url: response.url };
    try {
      const body = await readBody(response, 64 << 10);
      return new UnexpectedStatusError(request, response.status, response.statusText, body);
    } catch (error) {
      return requestFailed(request, error);
    }
  }
}
