import { Code, failedPrecondition, hasCode, notFound } from '@gantry/api';
import { type Descriptor, isIndexType, isManifestType, type Reference, repositoryOf } from '@gantry/oci';
import { encodingsOf } from './content-encoding.ts';
import { EndpointErrors } from './endpoint-errors.ts';
import type { HostClient } from './host-client.ts';
import { safeUrl, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';

/** One request for the bytes of a blob, at the first endpoint that has them. */
export interface BlobRequest {
  descriptor: Descriptor;
  reference: Reference;
  /** The reference as its user wrote it. */
  image: string;
  hosts: () => Promise<HostClient[]>;
  query: (host: HostClient) => Record<string, string>;
  scopes: readonly string[];
  /** The first byte wanted, and the one after the last. */
  start: number;
  end: number;
  /** Endpoints to pass over for this blob: they broke, or lied, too often. Shared by all its readers; never counts for all of them. */
  avoided: Set<HostClient>;
  signal?: AbortSignal | undefined;
}

export interface OpenBlob {
  response: HttpResponse;
  host: HostClient;
  /** All that could have been asked. */
  hosts: readonly HostClient[];
  /** Bytes to throw away before the first one wanted: a registry that ignores Range starts at 0. */
  skip: number;
}

interface Target {
  path: string | URL;
  accept: string;
}

function targets({ descriptor, reference }: BlobRequest): Target[] {
  const { mediaType, digest } = descriptor;
  const repository = repositoryOf(reference);
  const accept = [mediaType, '*/*'].filter((type) => type !== '').join(', ');
  const list: Target[] = [];
  for (const text of descriptor.urls ?? []) {
    if (/^https?:\/\//.test(text)) list.push({ path: new URL(text), accept });
  }
  if (isManifestType(mediaType) || isIndexType(mediaType)) {
    list.push({ path: `/${repository}/manifests/${digest}`, accept });
  }
  list.push({ path: `/${repository}/blobs/${digest}`, accept });
  return list;
}

/** @throws what the endpoint that got furthest said. */
export async function openBlob(request: BlobRequest, position: number): Promise<OpenBlob> {
  const { descriptor, avoided, signal } = request;
  const all = await request.hosts();
  if (all.length === 0) throw notFound('no pull hosts: not found');
  const left = all.filter((host) => !avoided.has(host));
  const hosts = left.length > 0 ? left : all;
  const errors = new EndpointErrors();
  for (const target of targets(request)) {
    for (const [index, host] of hosts.entries()) {
      try {
        const response = await host.send({
          method: 'GET',
          path: target.path,
          query: target.path instanceof URL ? {} : request.query(host),
          headers: { accept: target.accept, ...rangeHeader(request, position) },
          scopes: request.scopes,
          reference: request.image,
          patient: index === hosts.length - 1,
          signal,
        });
        if (response.status === 200 || response.status === 206) {
          return { response, host, hosts: all, skip: bytesToSkip(response, position, descriptor) };
        }
        if (response.status === 404) {
          await discard(response);
          const { digest, mediaType } = descriptor;
          const missing = `could not fetch content descriptor ${digest} (${mediaType}) from remote: not found`;
          errors.add(host.host.host, 1, notFound(missing));
          continue;
        }
        const body = await readBody(response, 64 << 10);
        const summary = { method: 'GET', url: response.url };
        throw new UnexpectedStatusError(summary, response.status, response.statusText, body);
      } catch (error) {
        signal?.throwIfAborted();
        // A refusal says more than no answer, and both more than another endpoint's 404.
        const answered = error instanceof UnexpectedStatusError || !hasCode(error, Code.Unavailable);
        errors.add(host.host.host, answered ? 3 : 2, error);
      }
    }
  }
  throw errors.error;
}

function rangeHeader({ descriptor, end }: BlobRequest, position: number): Record<string, string> {
  if (end < descriptor.size) return { range: `bytes=${position}-${end - 1}` };
  return position > 0 ? { range: `bytes=${position}-` } : {};
}

/** @throws FailedPrecondition if the answer cannot be what the descriptor says; its body is destroyed then. */
function bytesToSkip(response: HttpResponse, position: number, descriptor: Descriptor): number {
  try {
    return response.status === 206
      ? checkRange(response, position, descriptor)
      : checkWhole(response, position, descriptor);
  } catch (error) {
    response.body.destroy();
    throw error;
  }
}

function checkRange(response: HttpResponse, position: number, { size, digest }: Descriptor): number {
  const range = header(response, 'content-range') ?? '';
  if (encodingsOf(response.headers['content-encoding']).length > 0) {
    throw failedPrecondition(`${answerOf(response)} is part of an encoded answer, though none was asked for`);
  }
  if (range === '') return 0;
  const [, start, whole] = /^bytes (\d+)-(?:\d+)?\/(\d+|\*)$/.exec(range) ?? [];
  if (start === undefined || Number(start) !== position) {
    throw failedPrecondition(`unhandled content range in response of ${answerOf(response)}: ${range}`);
  }
  if (whole !== '*' && Number(whole) !== size) throw wrongSize(response, whole, size, digest);
  return 0;
}

function checkWhole(response: HttpResponse, position: number, { size, digest }: Descriptor): number {
  const length = header(response, 'content-length');
  const encoded = encodingsOf(response.headers['content-encoding']).length > 0;
  if (length !== undefined && Number(length) !== size && !encoded) {
    throw wrongSize(response, length, size, digest);
  }
  return position;
}

function wrongSize(response: HttpResponse, actual: unknown, size: number, digest: string): Error {
  return failedPrecondition(
    `failed size validation: ${actual} != ${size}: ${answerOf(response)} has ${actual} bytes for ${digest}, its descriptor says ${size}: failed precondition`,
  );
}

/** `GET https://host/v2/… (200 OK)`, for messages about what came in an answer. */
export function answerOf(response: HttpResponse): string {
  return `GET ${safeUrl(response.url)} (${response.status} ${response.statusText})`;
}
