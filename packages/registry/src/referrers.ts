import { Code, failedPrecondition, hasCode, notFound } from '@gantry/api';
import { type Descriptor, MediaType, maxManifestSize, type Reference, repositoryOf } from '@gantry/oci';
import type { HostClient } from './host-client.ts';
import { safeUrl, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';
import { readReferrers, referrersTag } from './referrers-tag.ts';

/** Manifests that name another one as their subject: signatures, attestations, whatever is attached to an image. */
export interface ReferrersRequest {
  reference: Reference;
  image: string;
  /** Of the subject. */
  digest: string;
  /** Only these; empty: all. */
  artifactTypes: readonly string[];
  hosts: readonly HostClient[];
  query: (host: HostClient) => Record<string, string>;
  scopes: readonly string[];
  signal?: AbortSignal | undefined;
}

/** A registry may answer in pages; so many are read. */
const maxPages = 64;

/** By the registry's API, or by the tag that stands in for it. Empty if there are none. @throws what the first endpoint said. */
export async function fetchReferrers(request: ReferrersRequest): Promise<Descriptor[]> {
  const { hosts, artifactTypes, signal } = request;
  if (hosts.length === 0) throw notFound('no referrers hosts: not found');
  let first: unknown;
  for (const [index, host] of hosts.entries()) {
    const one = new Referrers(request, host, index === hosts.length - 1);
    try {
      const all = (await one.byApi()) ?? (await one.byTag());
      if (!all) continue;
      // Registries may leave the choosing to us.
      return artifactTypes.length === 0 ? all : all.filter((entry) => artifactTypes.includes(entry.artifactType ?? ''));
    } catch (error) {
      signal?.throwIfAborted();
      first ??= error;
    }
  }
  if (first !== undefined && !hasCode(first, Code.NotFound)) throw first;
  return [];
}

class Referrers {
  readonly #request: ReferrersRequest;
  readonly #host: HostClient;
  readonly #patient: boolean;

  constructor(request: ReferrersRequest, host: HostClient, patient: boolean) {
    this.#request = request;
    this.#host = host;
    this.#patient = patient;
  }

  /** undefined if the registry does not know the API. */
  async byApi(): Promise<Descriptor[] | undefined> {
    const { reference, digest, artifactTypes, query } = this.#request;
    const all: Descriptor[] = [];
    let url = this.#host.url(`/${repositoryOf(reference)}/referrers/${digest}`, query(this.#host));
    for (const type of artifactTypes) url.searchParams.append('artifactType', type);
    for (let page = 0; page < maxPages; page++) {
      const response = await this.#get(url);
      const type = (header(response, 'content-type') ?? '').split(';')[0]?.trim();
      // Some answer 200 with a page of their own to whatever they do not know.
      if (page === 0 && (response.status === 404 || (response.status === 200 && type !== MediaType.OciIndex))) {
        await discard(response);
        return undefined;
      }
      all.push(...(await this.#read(response)));
      const next = /<([^>]*)>\s*;\s*rel="?next"?/.exec(header(response, 'link') ?? '')?.[1];
      if (next === undefined || !URL.canParse(next, url)) return all;
      const following = new URL(next, url);
      if (following.origin !== url.origin) return all;
      url = following;
    }
    return all;
  }

  async byTag(): Promise<Descriptor[] | undefined> {
    const { reference, digest, query } = this.#request;
    const path = `/${repositoryOf(reference)}/manifests/${referrersTag(digest)}`;
    const response = await this.#get(this.#host.url(path, query(this.#host)));
    if (response.status !== 404) return await this.#read(response);
    await discard(response);
    return undefined;
  }

  #get(url: URL): Promise<HttpResponse> {
    const { scopes, image, signal } = this.#request;
    return this.#host.send({
      method: 'GET',
      path: url,
      headers: { accept: MediaType.OciIndex },
      scopes,
      reference: image,
      patient: this.#patient,
      signal,
    });
  }

  async #read(response: HttpResponse): Promise<Descriptor[]> {
    const body = await readBody(response, maxManifestSize + 1);
    const { url, status, statusText } = response;
    if (status !== 200) throw new UnexpectedStatusError({ method: 'GET', url }, status, statusText, body);
    const what = `referrers index of GET ${safeUrl(url)}`;
    if (body.length > maxManifestSize) throw failedPrecondition(`${what}: over ${maxManifestSize} bytes`);
    try {
      return readReferrers(body);
    } catch (error) {
      throw failedPrecondition(`failed to decode ${what}: ${(error as Error).message}`, error);
    }
  }
}
