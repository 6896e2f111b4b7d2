import { invalidArgument } from '@gantry/api';

/**
 * An image reference as containerd reads it: a locator (host and path) and an object (tag, digest or both), with nothing
 * filled in. `ctr` sends these; the Docker short forms are expanded only by `normalizeDockerReference`.
 */
export interface Reference {
  /** `docker.io/library/busybox`. */
  locator: string;
  /** `latest`, `@sha256:…`, `latest@sha256:…` or ''. */
  object: string;
}

/** @throws InvalidArgument `invalid reference`, `hostname required`. */
export function parseReference(text: string): Reference {
  if (text.includes('://')) throw invalidArgument(`invalid reference: "${text}"`);
  // Go's url.Parse, which containerd uses, refuses these anywhere.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\x00-\x20\x7f]/.test(text)) throw invalidArgument(`invalid reference: "${text}"`);
  const slash = text.indexOf('/');
  const host = slash < 0 ? text : text.slice(0, slash);
  if (host === '') throw invalidArgument(`hostname required: "${text}"`);
  if (!/^(?:[^:@[\]]+|\[[0-9a-fA-F:.%]+\])(?::\d*)?$/.test(host)) {
    throw invalidArgument(`invalid reference: "${text}": bad host "${host}"`);
  }
  const rest = slash < 0 ? '' : text.slice(slash);
  const split = rest.search(/[:@]/);
  const path = split < 0 ? rest : rest.slice(0, split);
  let object = split < 0 ? '' : rest.slice(split);
  if (object.startsWith(':')) object = object.slice(1);
  return { locator: cleanPath(host + path), object };
}

/** Joins as Go's path.Join does: no empty or dot components, no slash at the end. */
function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

export function formatReference(reference: Reference): string {
  if (reference.object === '') return reference.locator;
  return reference.object.startsWith('@')
    ? reference.locator + reference.object
    : `${reference.locator}:${reference.object}`;
}

/** The host (with port) of a reference. */
export function hostOf(reference: Reference): string {
  const slash = reference.locator.indexOf('/');
  return slash < 0 ? reference.locator : reference.locator.slice(0, slash);
}

/** The repository at its host: `library/busybox`. */
export function repositoryOf(reference: Reference): string {
  const slash = reference.locator.indexOf('/');
  return slash < 0 ? '' : reference.locator.slice(slash + 1);
}

/** The part of the object before `@`. */
export function tagOf(reference: Reference): string {
  const at = reference.object.indexOf('@');
  return at < 0 ? reference.object : reference.object.slice(0, at);
}

/** The part of the object after `@`, as written; '' if there is none. */
export function digestOfReference(reference: Reference): string {
  const at = reference.object.indexOf('@');
  return at < 0 ? '' : reference.object.slice(at + 1);
}

const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`);
const domainPattern =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$/;
const tagPattern = /^\w[\w.-]{0,127}$/;

/**
 * A Docker name in full: `busybox` becomes `docker.io/library/busybox:latest`; with a digest the tag goes.
 * @throws InvalidArgument if it is none.
 */
export function normalizeDockerReference(name: string): string {
  const bad = (): Error => invalidArgument(`normalize image ref "${name}": invalid reference format`);
  const at = name.indexOf('@');
  const digest = at < 0 ? '' : name.slice(at + 1);
  let path = at < 0 ? name : name.slice(0, at);
  if (/^[a-f0-9]{64}$/.test(path)) throw bad();
  let tag = '';
  const colon = path.lastIndexOf(':');
  if (colon > path.lastIndexOf('/')) {
    tag = path.slice(colon + 1);
    path = path.slice(0, colon);
    if (!tagPattern.test(tag)) throw bad();
  }
  const slash = path.indexOf('/');
  const first = slash < 0 ? '' : path.slice(0, slash);
  let domain = 'docker.io';
  let repository = path;
  if (first !== '' && (/[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first)) {
    domain = first === 'index.docker.io' ? 'docker.io' : first;
    repository = path.slice(slash + 1);
  }
  if (domain === 'docker.io' && !repository.includes('/')) repository = `library/${repository}`;
  if (!domainPattern.test(domain) || !repositoryPattern.test(repository) || repository.length > 255) throw bad();
  if (at >= 0 && !/^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-fA-F0-9]{32,}$/.test(digest)) throw bad();
  if (digest !== '') return `${domain}/${repository}@${digest}`;
  return `${domain}/${repository}:${tag === '' ? 'latest' : tag}`;
}

/**
 * The reverse: `docker.io/library/busybox:1` becomes `busybox:1`, as docker-archive's RepoTags have it. Without tag and digest
 * it is `latest`. @throws InvalidArgument if it is no name that Docker knows
 */
export function familiarDockerReference(name: string): string {
  const at = name.indexOf('@');
  const digest = at < 0 ? '' : name.slice(at);
  const tagged = parseReference(normalizeDockerReference(at < 0 ? name : name.slice(0, at)));
  const hasTag = name.slice(0, at < 0 ? name.length : at).endsWith(`:${tagged.object}`);
  const object = digest === '' ? tagged.object : hasTag ? `${tagged.object}${digest}` : digest;
  let path = tagged.locator;
  if (path.startsWith('docker.io/')) {
    path = path.slice('docker.io/'.length);
    if (path.startsWith('library/') && !path.slice('library/'.length).includes('/')) path = path.slice(8);
  }
  return formatReference({ locator: path, object });
}

/** The `org.opencontainers.image.ref.name` of an image in an archive: its tag, or the whole name if it has none. */
export function ociReferenceName(name: string): string {
  try {
    const { object } = parseReference(name);
    if (object !== '' && !object.startsWith('@')) return object;
  } catch {
    // Not a reference: the name itself stands for the image.
  }
  return name;
}
