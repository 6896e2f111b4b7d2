import { hostOf, parseReference, repositoryOf } from '@gantry/oci';
import { splitPort } from '@gantry/registry';

/** Labels that say from which repositories a blob came, so that a push can mount it: `containerd.io/distribution.source.<host>`. */

const prefix = 'containerd.io/distribution.source.';

/** Labels have at most this many bytes, key and value together. */
const maxLabel = 4096;

export function distributionSource(reference: string): { key: string; repository: string } {
  const parsed = parseReference(reference);
  return { key: prefix + splitPort(hostOf(parsed)).name, repository: repositoryOf(parsed) };
}

/** The label with one more repository, in order and each once; undefined if nothing changes or it would be too long. */
export function addSource(current: string | undefined, key: string, repository: string): string | undefined {
  const repositories = new Set(current ? current.split(',') : []);
  if (repositories.has(repository)) return undefined;
  const value = [...repositories.add(repository)].sort().join(',');
  return key.length + value.length > maxLabel ? undefined : value;
}

/** A repository at the target's registry that has the blob: that which shares most of the target's path. */
export function mountCandidate(labels: Record<string, string>, reference: string): string | undefined {
  const { key, repository } = distributionSource(reference);
  const target = repository.split('/');
  let best: { repository: string; common: number } | undefined;
  for (const candidate of labels[key]?.split(',') ?? []) {
    if (candidate === '' || candidate === repository) continue;
    const parts = candidate.split('/');
    const differing = parts.findIndex((part, index) => part !== target[index]);
    const common = differing < 0 ? parts.length : differing;
    if (!best || common >= best.common) best = { repository: candidate, common };
  }
  return best?.repository;
}
