import { createHash } from 'node:crypto';
import type { Challenge } from './challenge.ts';
import type { Credentials } from './credentials.ts';
import type { Token } from './token.ts';

/**
 * Tokens that are still good, by who they were given to and for what; and what hosts asked for, so that the next transfer
 * need not be refused first. Shared by the clients of a daemon: a token is only found by whoever has the credentials that it
 * was got with.
 */
export class TokenCache {
  /** A promise, so that parallel requests share one fetch. */
  readonly #tokens = new Map<string, Promise<Token>>();
  readonly #challenges = new Map<string, Challenge>();

  static key(challenge: Challenge, scopes: readonly string[], credentials: Credentials | undefined): string {
    const { realm = '', service = '' } = challenge.parameters;
    return JSON.stringify([realm, service, fingerprint(credentials), ...scopes]);
  }

  /** Bearer challenges by the host that made them. */
  challenge(host: string): Challenge | undefined {
    return this.#challenges.get(host);
  }

  remember(host: string, challenge: Challenge): void {
    this.#challenges.delete(host);
    this.#challenges.set(host, challenge);
    evict(this.#challenges);
  }

  get(key: string): Promise<Token> | undefined {
    return this.#tokens.get(key);
  }

  set(key: string, token: Promise<Token>): void {
    this.#tokens.delete(key);
    this.#tokens.set(key, token);
    evict(this.#tokens);
    token.catch(() => {
      if (this.#tokens.get(key) === token) this.#tokens.delete(key);
    });
  }

  delete(key: string): void {
    this.#tokens.delete(key);
  }
}

/** More than any machine talks to within the life of a token. */
const maxEntries = 1000;

function evict(map: Map<string, unknown>): void {
  if (map.size <= maxEntries) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

function fingerprint(credentials: Credentials | undefined): string {
  if (!credentials) return '';
  const { expiresAt: _, ...secret } = credentials;
  return createHash('sha256').update(JSON.stringify(secret)).digest('hex');
}
