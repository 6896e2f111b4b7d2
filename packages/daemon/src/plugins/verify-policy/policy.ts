import { invalidArgument } from '@gantry/api';
import { hostOf, parseReference, repositoryOf } from '@gantry/oci';

/** What is to be done with images of some repositories. */
export interface PolicyRule {
  /** Patterns; see `matchesRepository`. */
  repositories: readonly string[];
  action: 'allow' | 'deny' | 'require-signature';
  /** Files with public keys, for `require-signature`. */
  keys: readonly string[];
  /** So many different keys must have signed. */
  required: number;
  /** What the signature must say besides the digest (`cosign sign -a`). */
  annotations: Readonly<Record<string, string>>;
  /** Another repository that the signatures are kept in (cosign's COSIGN_REPOSITORY); '' for the image's own. */
  signatureRepository: string;
}

type Table = Record<string, unknown>;

const isTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads `[[…rules]]`. @throws InvalidArgument that names the rule and the key */
export function readRules(value: unknown): PolicyRule[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw invalidArgument('rules: expected an array of tables');
  return value.map((item, index) => readRule(item, `rules: rule ${index + 1}`));
}

const known = ['repositories', 'action', 'keys', 'required', 'annotations', 'signature_repository'];

function readRule(value: unknown, where: string): PolicyRule {
  const fail = (what: string): Error => invalidArgument(`${where}: ${what}`);
  if (!isTable(value)) throw fail('expected a table');
  // A misspelt key could let through what it was meant to stop.
  const other = Object.keys(value).find((key) => !known.includes(key));
  if (other !== undefined) throw fail(`unknown key ${other}`);
  const { repositories, action, keys = [], annotations = {}, signature_repository: signatureRepository = '' } = value;
  if (!isStrings(repositories) || repositories.length === 0) throw fail('repositories: expected an array of patterns');
  if (action !== 'allow' && action !== 'deny' && action !== 'require-signature') {
    throw fail('action: expected allow, deny or require-signature');
  }
  if (!isStrings(keys)) throw fail('keys: expected an array of files');
  const required = Number(value.required ?? 1);
  if (action === 'require-signature' && keys.length === 0) throw fail('keys: a required signature needs a key');
  if (keys.some((file) => !file.startsWith('/'))) throw fail('keys: expected absolute paths');
  if (!Number.isSafeInteger(required) || required < 1 || (keys.length > 0 && required > keys.length)) {
    throw fail('required: expected a number from 1 to that of the keys');
  }
  if (!isTable(annotations) || !isStrings(Object.values(annotations))) {
    throw fail('annotations: expected a table of strings');
  }
  if (typeof signatureRepository !== 'string') throw fail('signature_repository: expected a repository');
  if (signatureRepository !== '') parseReference(signatureRepository);
  return {
    repositories,
    action,
    keys,
    required,
    annotations: annotations as Record<string, string>,
    signatureRepository,
  };
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

/** The repository of a reference, as patterns are held against: `host/path`, the host in lower case. */
export function repositoryKey(name: string): string {
  const reference = parseReference(name);
  return `${hostOf(reference).toLowerCase()}/${repositoryOf(reference)}`;
}

/** Whether a repository is meant by a pattern: `*` stands for anything within one part of it, `**` for anything at all. */
export function matchesRepository(pattern: string, repository: string): boolean {
  const slash = pattern.indexOf('/');
  const host = slash < 0 ? pattern : pattern.slice(0, slash);
  const source = (host.toLowerCase() + pattern.slice(host.length))
    .split(/(\*\*|\*)/)
    .map((part) => {
      if (part === '**') return '.*';
      return part === '*' ? '[^/]*' : part.replace(/[.+?^${}()|[\]\\]/g, '\\$&');
    })
    .join('');
  return new RegExp(`^${source}$`, 's').test(repository);
}
