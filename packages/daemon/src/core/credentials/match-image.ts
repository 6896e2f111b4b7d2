import { hostOf, parseReference, repositoryOf } from '@gantry/oci';
import type { CredentialsRequest } from '@gantry/registry';

/** A host with an optional port and path, as patterns and images have it. */
interface Place {
  host: string[];
  port: string;
  path: string;
}

function parsePlace(text: string): Place {
  const bare = text.replace(/^https?:\/\//, '');
  const slash = bare.indexOf('/');
  const authority = slash < 0 ? bare : bare.slice(0, slash);
  const found = /^(.*?)(?::(\d+))?$/.exec(authority);
  return {
    host: (found?.[1] ?? authority).toLowerCase().split('.'),
    port: found?.[2] ?? '',
    path: slash < 0 ? '' : bare.slice(slash),
  };
}

/**
 * Whether an image is one of those that a pattern means, by the kubelet's rules: as many dots in the host, `*` and `?` within
 * a part of it, the same port, and the pattern's path at the beginning of the image's.
 */
export function matchesImage(pattern: string, image: string): boolean {
  const wanted = parsePlace(pattern);
  const given = parsePlace(image);
  return (
    wanted.port === given.port &&
    wanted.host.length === given.host.length &&
    given.path.startsWith(wanted.path) &&
    wanted.host.every((part, index) => globPart(part).test(given.host[index] ?? ''))
  );
}

function globPart(part: string): RegExp {
  const source = part.replace(/[.*+?^${}()|[\]\\]/g, (special) => {
    if (special === '*') return '[^.]*';
    return special === '?' ? '[^.]' : `\\${special}`;
  });
  return new RegExp(`^${source}$`);
}

/**
 * The image that a request is for, without tag and digest, at the host that asks: a mirror is somebody else, who must not be
 * given the registry's own login.
 */
export function imageOf({ host, reference }: CredentialsRequest): string {
  const registry = host === 'registry-1.docker.io' ? 'docker.io' : host;
  if (reference === undefined) return registry;
  const parsed = parseReference(reference);
  return hostOf(parsed) === registry ? parsed.locator : `${registry}/${repositoryOf(parsed)}`;
}
