import { Code, hasCode, invalidArgument, notFound, StatusError, unimplemented } from '@gantry/api';
import {
  type Descriptor,
  digestOf,
  digestOfReference,
  formatReference,
  hostOf,
  isIndexType,
  MediaType,
  maxManifestSize,
  parseDigest,
  parseReference,
  type Reference,
  repositoryOf,
  tagOf,
} from '@gantry/oci';
import { encodingsOf } from './content-encoding.ts';
import type { CredentialsProvider } from './credentials.ts';
import { EndpointErrors } from './endpoint-errors.ts';
import { BlobReader, type BlobSource } from './fetch-blob.ts';
import { ParallelReader, type RangeOptions, RangeReader } from './fetch-range.ts';
import { HostClient } from './host-client.ts';
import { defaultHosts, type HostCapability, type HostsProvider } from './hosts.ts';
import { AuthorizationError, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';
import type { BlobRequest } from './open-blob.ts';
import { holdsDescriptor, type PushOptions, type PushOutcome, pushDescriptor } from './push.ts';
import { askReferrers, readReferrers, readWhole, referrersTag } from './referrers.ts';
import type { TokenCache } from './token-cache.ts';

/**
 * A client of the OCI distribution specification for one reference after another: resolves names to digests, reads blobs
 * from the first endpoint that has them, and pushes. One client serves one transfer; connections and tokens live as long
 * as it does.
 */
export interface RegistryClientOptions {
  /** Default: no configuration, containerd's built-in rules. */
  hosts?: HostsProvider;
  credentials?: CredentialsProvider | undefined;
  /** Sent with every request to the registry. */
  headers?: Record<string, string> | undefined;
  /** Told one line for each request; never a secret. */
  trace?: ((line: string) => void) | undefined;
  /** Told what each request and its answer looked like, heads only; never a secret. */
  dump?: ((text: string) => void) | undefined;
  /** Shared with other clients, so that tokens are used again by the next transfer; default: the client's own. */
  tokens?: TokenCache | undefined;
}

export interface FetchOptions {
  /** The first byte wanted; default 0. */
  offset?: number;
  ranges?: RangeOptions | undefined;
  signal?: AbortSignal;
}

export const manifestTypes: readonly string[] = [
  MediaType.DockerManifest,
  MediaType.DockerManifestList,
  MediaType.OciManifest,
  MediaType.OciIndex,
];

const acceptManifests = [...manifestTypes, '*/*'].join(', ');

export class RegistryClient implements AsyncDisposable {
  readonly #options: RegistryClientOptions;
  readonly #hosts = new Map<string, Promise<HostClient[]>>();
  /** Endpoints that broke, or lied, too often, by the digest of the blob. */
  readonly #avoided = new Map<string, Set<HostClient>>();

  constructor(options: RegistryClientOptions = {}) {
    this.#options = options;
  }

  /**
   * The descriptor that a reference stands for now. With `blob` the reference's digest is that of a blob rather than of a
   * manifest, and may have any size; what is too large for a manifest is not found otherwise.
   * @throws NotFound `<reference>: not found`; Unauthenticated `pull access denied, …`; what the furthest endpoint said.
   */
  async resolve(
    text: string,
    signal?: AbortSignal,
    { blob = false }: { blob?: boolean } = {},
  ): Promise<{ name: string; descriptor: Descriptor }> {
    const reference = parseReference(text);
    if (reference.object === '') throw invalidArgument(`object required: "${text}"`);
    const digest = digestOfReference(reference);
    if (digest !== '') parseDigest(digest);
    const hosts = await this.#endpoints(reference, digest === '' ? ['pull', 'resolve'] : ['pull']);
    if (hosts.length === 0) throw notFound('no resolve hosts: not found');
    const found = new EndpointErrors();
    const targets = digest === '' ? [`manifests/${tagOf(reference)}`] : [`manifests/${digest}`, `blobs/${digest}`];
    if (blob) targets.reverse();
    for (const target of targets) {
      // Only a 404 leads on to the blobs of old registries: those answer with no type worth keeping.
      if (found.rank > 2) break;
      for (const [index, host] of hosts.entries()) {
        try {
          const patient = index === hosts.length - 1;
          const descriptor = await this.#head(host, reference, target, digest, patient, signal);
          if (descriptor && descriptor.size > maxManifestSize && !blob)
            throw notFound(`rejecting ${descriptor.size} byte manifest for ${formatReference(reference)}: not found`);
          if (descriptor) return { name: text, descriptor };
          found.add(host.host.host, 2, notFound(`${text}: not found`));
        } catch (error) {
          signal?.throwIfAborted();
          found.add(host.host.host, rankOf(error), deniedPull(error));
        }
      }
    }
    throw found.error ?? notFound(`${text}: not found`);
  }

  /** undefined for a 404. */
  async #head(
    host: HostClient,
    reference: Reference,
    target: string,
    wanted: string,
    patient: boolean,
    signal?: AbortSignal,
  ): Promise<Descriptor | undefined> {
    const request = {
      path: `/${repositoryOf(reference)}/${target}`,
      query: namespaceQuery(host, reference),
      headers: { accept: acceptManifests },
      scopes: [pullScope(reference)],
      reference: formatReference(reference),
      patient,
      signal,
    };
    const response = await host.send({ ...request, method: 'HEAD' });
    await discard(response);
    if (response.status === 404) return undefined;
    const length = header(response, 'content-length');
    let digest = header(response, 'docker-content-digest') ?? '';
    let size =
      length === undefined || encodingsOf(response.headers['content-encoding']).length > 0 ? -1 : Number(length);
    let mediaType = mediaTypeOf(response);
    // A HEAD has no body to say why; some registries do not know HEAD at all.
    if ([400, 403, 405, 501].includes(response.status)) size = -1;
    else if (response.status > 299) throw unexpected('HEAD', response);
    if (wanted !== '') digest = wanted;
    if (digest === '' || !(size >= 0)) {
      const got = await host.send({ ...request, method: 'GET' });
      const body = await readBody(got, maxManifestSize + 1);
      if (got.status === 404) return undefined;
      if (got.status > 299) throw unexpected('GET', got, body);
      mediaType = mediaTypeOf(got);
      size = body.length;
      if (digest === '' && mediaType !== MediaType.DockerManifestV1) digest = digestOf(body);
    }
    if (mediaType === MediaType.DockerManifestV1) {
      throw unimplemented(
        `media type "${MediaType.DockerManifestV1}" is no longer supported since containerd v2.0, please rebuild the image as "${MediaType.DockerManifest}" or "${MediaType.OciManifest}": not implemented`,
      );
    }
    try {
      parseDigest(digest);
    } catch (error) {
      throw StatusError.wrap(error, `"${digest}" in header not a valid digest`);
    }
    return { mediaType, digest, size };
  }

  /**
   * The bytes of a blob or manifest of the reference's repository, from `offset` on, in order. Broken connections are taken
   * up again where they broke. With `ranges` what is longer than one of them is asked for in several requests at once.
   * The digest is for the reader to check; a length other than the descriptor's is an error (FailedPrecondition).
   */
  fetch(text: string, descriptor: Descriptor, options: FetchOptions = {}): BlobSource {
    const { offset = 0, ranges, signal } = options;
    const request = this.#blobRequest(text, descriptor, offset, descriptor.size, signal);
    const several = ranges && ranges.size > 0 && ranges.concurrency > 1 && descriptor.size - offset > ranges.size;
    return several ? new ParallelReader(request, ranges) : new BlobReader(request);
  }

  /**
   * Exactly `length` bytes from `offset` on, by a request of their own.
   * @throws RangeIgnoredError, before the first byte, if the registry only sends blobs whole.
   */
  fetchRange(
    text: string,
    descriptor: Descriptor,
    { offset, length, signal }: { offset: number; length: number; signal?: AbortSignal },
  ): BlobSource {
    const end = Math.min(offset + length, descriptor.size);
    return new RangeReader(this.#blobRequest(text, descriptor, offset, end, signal));
  }

  #blobRequest(text: string, descriptor: Descriptor, start: number, end: number, signal?: AbortSignal): BlobRequest {
    const reference = parseReference(text);
    const avoided = this.#avoided.get(descriptor.digest) ?? new Set();
    this.#avoided.set(descriptor.digest, avoided);
    return {
      descriptor,
      reference,
      image: text,
      hosts: () => this.#endpoints(reference, ['pull']),
      query: (host) => namespaceQuery(host, reference),
      scopes: [pullScope(reference)],
      start,
      end,
      avoided,
      signal,
    };
  }

  /**
   * What refers to a manifest of the reference's repository as its subject: by the referrers API of the first endpoint that
   * knows any, else by the tag that clients keep where there is no such API. Empty if there is nothing.
   */
  async referrers(
    text: string,
    descriptor: Descriptor,
    { artifactType, signal }: { artifactType?: string; signal?: AbortSignal } = {},
  ): Promise<Descriptor[]> {
    const reference = parseReference(text);
    const { digest } = descriptor;
    const scopes = [pullScope(reference)];
    let failure: unknown;
    for (const host of await this.#endpoints(reference, ['referrers'])) {
      const query = namespaceQuery(host, reference);
      try {
        const found = await askReferrers(host, reference, digest, { artifactType, query, scopes, signal });
        if (found && found.length > 0) return found;
        failure = undefined;
      } catch (error) {
        signal?.throwIfAborted();
        failure = error;
      }
    }
    // Not to be known is not the same as not to be there; whom the mirrors stand for is asked last.
    if (failure) throw failure;
    const tagged = `${reference.locator}:${referrersTag(digest)}`;
    let list: Descriptor;
    try {
      list = (await this.resolve(tagged, signal)).descriptor;
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return [];
      throw error;
    }
    if (!isIndexType(list.mediaType)) return [];
    const body = await readWhole(this.fetch(tagged, list, { ...(signal && { signal }) }), list);
    return readReferrers(body, artifactType);
  }

  /** Puts one blob or manifest to the reference's repository; a descriptor that the reference's digest names gets its tag. */
  async push(text: string, descriptor: Descriptor, options: PushOptions): Promise<PushOutcome> {
    const reference = parseReference(text);
    const [host] = await this.#endpoints(reference, ['push']);
    if (!host) throw notFound('no push hosts: not found');
    return await pushDescriptor({
      host,
      reference,
      image: text,
      descriptor,
      query: namespaceQuery(host, reference),
      options,
    });
  }

  /** Whether the endpoint that a push would go to has a blob or manifest already. */
  async holds(text: string, descriptor: Descriptor, signal?: AbortSignal): Promise<boolean> {
    const reference = parseReference(text);
    const [host] = await this.#endpoints(reference, ['push']);
    if (!host) throw notFound('no push hosts: not found');
    const open = (): never => {
      throw new Error('nothing is sent to find out');
    };
    const query = namespaceQuery(host, reference);
    return await holdsDescriptor({ host, reference, image: text, descriptor, query, options: { open, signal } });
  }

  async #endpoints(reference: Reference, needed: readonly HostCapability[]): Promise<HostClient[]> {
    const name = hostOf(reference);
    let clients = this.#hosts.get(name);
    if (!clients) {
      const { hosts = defaultHosts(), ...options } = this.#options;
      clients = hosts(name).then((list) => list.map((host) => new HostClient(host, options)));
      this.#hosts.set(name, clients);
    }
    return (await clients).filter(({ host }) => needed.every((capability) => host.capabilities.includes(capability)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const clients = await Promise.all([...this.#hosts.values()].map((list) => list.catch(() => [])));
    this.#hosts.clear();
    await Promise.all(clients.flat().map((client) => client[Symbol.asyncDispose]()));
  }
}

/** Mirrors are told which registry they stand for. */
function namespaceQuery(host: HostClient, reference: Reference): Record<string, string> {
  const name = hostOf(reference);
  const own = name === 'docker.io' ? 'registry-1.docker.io' : name;
  return host.host.host === own ? {} : { ns: name };
}

function pullScope(reference: Reference): string {
  return `repository:${repositoryOf(reference)}:pull`;
}

/** Some old registries call a manifest of schema 1 plain text. */
function mediaTypeOf(response: HttpResponse): string {
  const type = (header(response, 'content-type') ?? '').split(';')[0]!.trim();
  return type === 'text/plain' ? MediaType.DockerManifestV1 : type;
}

function unexpected(method: string, { url, status, statusText }: HttpResponse, body?: Uint8Array): Error {
  return new UnexpectedStatusError({ method, url }, status, statusText, body);
}

function rankOf(error: unknown): number {
  if (error instanceof UnexpectedStatusError) return 3;
  if (hasCode(error, Code.NotFound)) return 4;
  return error instanceof AuthorizationError || hasCode(error, Code.Unavailable) ? 1 : 3;
}

function deniedPull(error: unknown): unknown {
  if (!(error instanceof AuthorizationError)) return error;
  return StatusError.wrap(error, 'pull access denied, repository does not exist or may require authorization');
}
