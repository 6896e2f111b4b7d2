import { setTimeout as sleep } from 'node:timers/promises';
import { Code, failedPrecondition, hasCode, notFound, StatusError } from '@gantry/api';
import { type Descriptor, isIndexType, isManifestType, type Reference, repositoryOf } from '@gantry/oci';
import type { HostClient } from './host-client.ts';
import { requestFailed, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';

/** Reads one blob from the endpoints that may have it, going on after a broken connection at the byte where it broke. */
export interface BlobRequest {
  descriptor: Descriptor;
  reference: Reference;
  hosts: () => Promise<HostClient[]>;
  query: (host: HostClient) => Record<string, string>;
  scopes: readonly string[];
  offset: number;
  signal?: AbortSignal | undefined;
}

export type BlobSource = AsyncIterable<Uint8Array>;

/** So many times in a row may a connection break without a byte gained. */
const maxFailures = 5;

export async function* readBlob(request: BlobRequest): AsyncGenerator<Uint8Array> {
  const { descriptor, signal } = request;
  const { size } = descriptor;
  let position = request.offset;
  let failures = 0;
  if (position === size && size > 0) return;
  for (;;) {
    const response = await open(request, position);
    try {
      let skip = bytesToSkip(response, position, descriptor);
      for await (const piece of response.body as AsyncIterable<Buffer>) {
        const chunk = skip > 0 ? piece.subarray(Math.min(skip, piece.length)) : piece;
        skip -= piece.length - chunk.length;
        if (chunk.length === 0) continue;
        if (position + chunk.length > size) {
          throw failedPrecondition(
            `failed size validation: ${response.url.host} sent more than the ${size} bytes of ${descriptor.digest}: failed precondition`,
          );
        }
        position += chunk.length;
        failures = 0;
        yield chunk;
      }
      if (position === size) return;
      throw requestFailed(
        { method: 'GET', url: response.url },
        new Error(`connection ended at byte ${position} of ${size}`),
      );
    } catch (error) {
      response.body.destroy();
      signal?.throwIfAborted();
      const broken = error instanceof StatusError ? error : requestFailed({ method: 'GET', url: response.url }, error);
      if (!hasCode(broken, Code.Unavailable) || ++failures > maxFailures) throw broken;
      await sleep(100 * 2 ** (failures - 1), undefined, { ...(signal && { signal }) });
    }
  }
}

/** A registry that ignores Range starts at 0: that much is read and thrown away. */
function bytesToSkip(response: HttpResponse, position: number, descriptor: Descriptor): number {
  const { size, digest } = descriptor;
  if (response.status === 206) {
    const range = header(response, 'content-range') ?? '';
    const found = /^bytes (\d+)-(?:\d+)?\/(\d+|\*)$/.exec(range);
    if (range !== '' && Number(found?.[1]) !== position) {
      throw failedPrecondition(`unhandled content range in response of ${response.url.host}: ${range}`);
    }
    return 0;
  }
  const length = header(response, 'content-length');
  if (length !== undefined && Number(length) !== size && header(response, 'content-encoding') === undefined) {
    throw failedPrecondition(
      `failed size validation: ${response.url.host} has ${length} != ${size} bytes for ${digest}: failed precondition`,
    );
  }
  return position;
}

interface Target {
  path: string | URL;
  accept: string;
}

function targets(request: BlobRequest): Target[] {
  const { descriptor, reference } = request;
  const { mediaType, digest } = descriptor;
  const repository = repositoryOf(reference);
  const accept = [mediaType, '*/*'].filter((type) => type !== '').join(', ');
  const list: Target[] = [];
  if (isManifestType(mediaType) || isIndexType(mediaType)) {
    list.push({ path: `/${repository}/manifests/${digest}`, accept });
  }
  list.push({ path: `/${repository}/blobs/${digest}`, accept });
  for (const text of descriptor.urls ?? []) {
    if (/^https?:\/\//.test(text)) list.unshift({ path: new URL(text), accept });
  }
  return list;
}

async function open(request: BlobRequest, position: number): Promise<HttpResponse> {
  const { descriptor, signal } = request;
  const hosts = await request.hosts();
  if (hosts.length === 0) throw notFound('no pull hosts: not found');
  let first: unknown;
  for (const target of targets(request)) {
    for (const [index, host] of hosts.entries()) {
      try {
        const response = await host.send({
          method: 'GET',
          path: target.path,
          query: target.path instanceof URL ? {} : request.query(host),
          headers: { accept: target.accept, ...(position > 0 && { range: `bytes=${position}-` }) },
          scopes: request.scopes,
          patient: index === hosts.length - 1,
          signal,
        });
        if (response.status === 200 || response.status === 206) return response;
        if (response.status === 404) {
          await discard(response);
          first ??= notFound(
            `could not fetch content descriptor ${descriptor.digest} (${descriptor.mediaType}) from remote: not found`,
          );
          continue;
        }
        const body = await readBody(response, 64 << 10);
        throw new UnexpectedStatusError(
          { method: 'GET', url: response.url },
          response.status,
          response.statusText,
          body,
        );
      } catch (error) {
        signal?.throwIfAborted();
        // A real refusal says more than another endpoint's 404.
        if (first === undefined || hasCode(first, Code.NotFound)) first = error;
      }
    }
  }
  throw first;
}
