import { unknown } from '@gantry/api';
import type {
  CredentialProvider,
  Credentials,
  CredentialsRequest,
} from '../../core/credentials/credential-provider.ts';
import { imageOf, matchesImage } from '../../core/credentials/match-image.ts';
import { parseDuration } from '../../core/plugin/duration.ts';
import { type CredentialProgram, runCredentialProgram } from './credential-program.ts';

export interface KubeletOptions extends CredentialProgram {
  /** For answers that name none, milliseconds; 0: not kept. */
  defaultCacheMs: number;
  /** Milliseconds since 1970; for tests. */
  now?: () => number;
}

const apiVersion = 'credentialprovider.kubelet.k8s.io/v1';

interface Login {
  username: string;
  password: string;
}

/** Logins by pattern of images. */
type Auth = Map<string, Login>;

interface Answer {
  auth: Auth;
  cacheKeyType: 'Image' | 'Registry' | 'Global';
  cacheMs: number;
}

/**
 * A credential provider of the kubelet: a program that is given a CredentialProviderRequest and answers a
 * CredentialProviderResponse, which is kept for as long and for as many images as it says.
 */
export class KubeletProvider implements CredentialProvider {
  readonly #options: KubeletOptions;
  readonly #now: () => number;
  readonly #cache = new Map<string, { auth: Auth; until: number }>();
  /** One process for an image at a time. */
  readonly #asking = new Map<string, Promise<Auth>>();

  constructor(options: KubeletOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  async get(request: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined> {
    const image = imageOf(request);
    const auth = this.#cached(image) ?? (await this.#askOnce(image, signal));
    // As the kubelet tries them: the longest of those that begin alike first.
    const matching = [...auth.keys()].sort().reverse();
    const pattern = matching.find((candidate) => matchesImage(candidate, image));
    const login = pattern === undefined ? undefined : auth.get(pattern);
    return login && { kind: 'password', username: login.username, secret: login.password };
  }

  #cached(image: string): Auth | undefined {
    const now = this.#now();
    for (const [key, { until }] of this.#cache) if (until <= now) this.#cache.delete(key);
    for (const key of [`image ${image}`, `registry ${image.split('/')[0]}`, 'global']) {
      const found = this.#cache.get(key);
      if (found) return found.auth;
    }
    return undefined;
  }

  async #askOnce(image: string, signal: AbortSignal | undefined): Promise<Auth> {
    const under = this.#asking.get(image);
    if (under) {
      // Its caller may leave; then this one asks for itself.
      const auth = await under.catch(() => undefined);
      if (auth) return auth;
      signal?.throwIfAborted();
    }
    const asking = this.#ask(image, signal);
    this.#asking.set(image, asking);
    try {
      return await asking;
    } finally {
      if (this.#asking.get(image) === asking) this.#asking.delete(image);
    }
  }

  async #ask(image: string, signal: AbortSignal | undefined): Promise<Auth> {
    const request = JSON.stringify({ kind: 'CredentialProviderRequest', apiVersion, image });
    const { code, stdout } = await runCredentialProgram(this.#options, [], request, signal);
    const { file, defaultCacheMs } = this.#options;
    if (code !== 0) {
      throw unknown(`${file}: exit status ${code} (what it printed is not shown, it may hold secrets: run it by hand)`);
    }
    const { auth, cacheKeyType, cacheMs } = readAnswer(file, stdout, defaultCacheMs);
    if (cacheMs > 0) {
      const keys = { Image: `image ${image}`, Registry: `registry ${image.split('/')[0]}`, Global: 'global' };
      this.#cache.set(keys[cacheKeyType], { auth, until: this.#now() + cacheMs });
    }
    return auth;
  }
}

const isTable = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function readAnswer(file: string, text: string, defaultCacheMs: number): Answer {
  const bad = (what: string): Error => unknown(`${file}: its answer is no CredentialProviderResponse: ${what}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw bad('it is not JSON');
  }
  if (!isTable(value) || value.kind !== 'CredentialProviderResponse') throw bad('kind is another');
  if (value.apiVersion !== apiVersion) throw bad(`apiVersion is not ${apiVersion}`);
  const { cacheKeyType, cacheDuration, auth: entries } = value;
  if (cacheKeyType !== 'Image' && cacheKeyType !== 'Registry' && cacheKeyType !== 'Global') {
    throw bad('cacheKeyType is not Image, Registry or Global');
  }
  const cacheMs = cacheDuration == null ? defaultCacheMs : parseDuration(String(cacheDuration));
  if (cacheMs === undefined) throw bad('cacheDuration is no duration');
  const auth: Auth = new Map();
  if (entries != null && !isTable(entries)) throw bad('auth is not an object');
  for (const [pattern, login] of Object.entries(entries ?? {})) {
    if (!isTable(login) || typeof login.username !== 'string' || typeof login.password !== 'string') {
      throw bad('an entry of auth has no username and password');
    }
    auth.set(pattern, { username: login.username, password: login.password });
  }
  return { auth, cacheKeyType, cacheMs };
}
