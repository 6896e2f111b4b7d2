import { type Descriptor, digestOf, MediaType, maxManifestSize, repositoryOf } from '@gantry/oci';
import { discard, readBody } from './http-transport.ts';
import type { PushTarget } from './push.ts';
import { acceptPushed, unexpectedAnswer } from './push-answer.ts';
import type { PushSender } from './push-upload.ts';
import { readReferrers, referrersTag } from './referrers.ts';

/**
 * Referrers where the registry has no API for them: an index under a tag made of the subject's digest, kept by those who
 * push (OCI distribution specification, "Referrers Tag Schema").
 */

export interface ReferrersIndex {
  schemaVersion: 2;
  mediaType: string;
  manifests: Descriptor[];
}

interface Subjected {
  subject?: { digest?: unknown };
  artifactType?: string;
  config?: { mediaType?: string };
  annotations?: Record<string, string>;
}

/** Adds the manifest just pushed to the index of its subject; nothing if it has none, or is there. */
export async function addToReferrersTag(target: PushTarget, manifest: Uint8Array, send: PushSender): Promise<void> {
  const { descriptor, reference } = target;
  const { subject, artifactType, config, annotations } = readSubjected(manifest);
  const digest = subject?.digest;
  if (typeof digest !== 'string' || !/^[a-z0-9]+:[a-f0-9]{32,}$/.test(digest)) return;
  const path = `/${repositoryOf(reference)}/manifests/${referrersTag(digest)}`;
  const answer = await send({ method: 'GET', path, headers: { accept: MediaType.OciIndex } });
  if (answer.status !== 200 && answer.status !== 404) throw await unexpectedAnswer(answer, 'GET');
  const known = answer.status === 200 ? readReferrers(await readBody(answer, maxManifestSize + 1)) : [];
  if (answer.status === 404) await discard(answer);
  if (known.some((entry) => entry.digest === descriptor.digest)) return;
  const type = artifactType ?? config?.mediaType;
  const { mediaType, size } = descriptor;
  const entry: Descriptor = {
    mediaType,
    digest: descriptor.digest,
    size,
    ...(type !== undefined && { artifactType: type }),
    ...(annotations && { annotations }),
  };
  const index: ReferrersIndex = { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests: [...known, entry] };
  const body = Buffer.from(JSON.stringify(index));
  const put = await send({ method: 'PUT', path, headers: { 'content-type': MediaType.OciIndex }, body });
  await acceptPushed(put, 'PUT', digestOf(body));
}

function readSubjected(manifest: Uint8Array): Subjected {
  try {
    const value = JSON.parse(new TextDecoder().decode(manifest)) as Subjected | null;
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
