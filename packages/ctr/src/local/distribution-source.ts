// Labels that say from which repositories a blob came, so that a push can have the registry mount it.
import { hostOf, parseReference, repositoryOf } from '@gantry/oci';

const prefix = 'containerd.io/distribution.source.';
/** Labels have at most this many bytes, key and value together. */
const longest = 4096;

/** The label's key and the repository, of an image's reference. */
export function sourceOf(reference: string): { key: string; repository: string } {
  const parsed = parseReference(reference);
  return { key: prefix + hostOf(parsed).replace(/:\d+$/, ''), repository: repositoryOf(parsed) };
}

/** The labels to be set so that a blob is known to be in one more repository; none if it is known already. */
export function sourceLabels(labels: Readonly<Record<string, string>>, reference: string): Record<string, string> {
  const { key, repository } = sourceOf(reference);
  const present = labels[key]?.split(',') ?? [];
  const value = [...new Set([...present, repository])].sort().join(',');
  return present.includes(repository) || key.length + value.length > longest ? {} : { [key]: value };
}

/** A repository at the same registry that has the blob. */
export function mountSource(labels: Readonly<Record<string, string>>, reference: string): string | undefined {
  const { key, repository } = sourceOf(reference);
  return labels[key]?.split(',').find((candidate) => candidate !== '' && candidate !== repository);
}
