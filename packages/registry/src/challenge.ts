/** One way of authenticating that a server offered in `WWW-Authenticate` (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  /** Names in lower case. */
  parameters: Record<string, string>;
}

/** Reads the header's values; what is malformed is left out. Bearer comes first, then basic, then others. */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  const challenges: Challenge[] = [];
  for (const header of headers) challenges.push(...parseOne(header));
  const rank = (challenge: Challenge): number =>
    challenge.scheme === 'bearer' ? 0 : challenge.scheme === 'basic' ? 1 : 2;
  return challenges.sort((a, b) => rank(a) - rank(b));
}

function parseOne(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  // A token alone starts a challenge; token = value belongs to the one before.
  const pattern = /[\s,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/y;
  for (;;) {
    const found = pattern.exec(header);
    if (!found) return challenges;
    const [, token = '', quoted, plain] = found;
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain;
    if (value === undefined) challenges.push({ scheme: token.toLowerCase(), parameters: {} });
    else {
      const last = challenges.at(-1);
      if (last) last.parameters[token.toLowerCase()] = value;
    }
  }
}
