import { StatusError, unknown } from '@gantry/api';
import {
  type Descriptor,
  descriptorFromJson,
  digestOf,
  formatReference,
  isIndexType,
  MediaType,
  maxManifestSize,
  parseDigest,
  type Reference,
  repositoryOf,
} from '@gantry/oci';
import type { HostClient } from './host-client.ts';
import { UnexpectedStatusError } from './http-error.ts';
import { type HttpResponse, header, readBody } from './http-transport.ts';

/** The referrers API of distribution specification 1.1: what says of itself that it belongs to a manifest. */

/** Pages of one answer; more would be a registry that never ends. */
const maxPages = 16;

/** Asks one endpoint; undefined if it does not have the API. */
export async function askReferrers(
  host: HostClient,
  reference: Reference,
  digest: string,
  options: {
    artifactType?: string | undefined;
    query: Record<string, string>;
    scopes: readonly string[];
    signal?: AbortSignal | undefined;
  },
): Promise<Descriptor[] | undefined> {
  const { artifactType, scopes, signal } = options;
  const found: Descriptor[] = [];
  let path: string | URL = `/${repositoryOf(reference)}/referrers/${digest}`;
  let query = { ...options.query, ...(artifactType !== undefined && { artifactType }) };
  for (let page = 0; page < maxPages; page++) {
    const response: HttpResponse = await host.send({
      method: 'GET',
      path,
      query,
      headers: { accept: MediaType.OciIndex },
      scopes,
      reference: formatReference(reference),
      signal,
    });
    const body = await readBody(response, maxManifestSize);
    // Without the API some answer 404, some another refusal, some a page that is no list.
    if ([400, 404, 405, 406, 501].includes(response.status)) return page === 0 ? undefined : found;
    if (response.status > 299) {
      throw new UnexpectedStatusError({ method: 'GET', url: response.url }, response.status, response.statusText, body);
    }
    const type = (header(response, 'content-type') ?? '').split(';')[0]!.trim();
    if (!isIndexType(type)) return page === 0 ? undefined : found;
    found.push(...readReferrers(body, artifactType));
    const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(header(response, 'link') ?? '')?.[1];
    if (next === undefined) break;
    path = new URL(next, response.url);
    query = {};
  }
  return found;
}

/** The manifests of an index; those of one artifact type if it is given. */
export function readReferrers(body: Uint8Array, artifactType?: string): Descriptor[] {
  try {
    const { manifests = [] } = JSON.parse(new TextDecoder().decode(body)) as { manifests?: unknown[] };
    const list = manifests.map(descriptorFromJson);
    for (const { digest } of list) parseDigest(digest);
    return artifactType === undefined ? list : list.filter((item) => item.artifactType === artifactType);
  } catch (error) {
    throw StatusError.wrap(error, 'the list of referrers cannot be read');
  }
}

/** The tag under which clients keep the list where the API is missing. */
export function referrersTag(digest: string): string {
  const { algorithm, encoded } = parseDigest(digest);
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`;
}

/** Reads the whole of a manifest that must have the descriptor's digest. */
export async function readWhole(bytes: AsyncIterable<Uint8Array>, descriptor: Descriptor): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  const whole = Buffer.concat(chunks);
  const { algorithm } = parseDigest(descriptor.digest);
  const digest = digestOf(whole, algorithm);
  if (digest !== descriptor.digest) throw unknown(`unexpected digest ${digest}, expected ${descriptor.digest}`);
  return whole;
}
