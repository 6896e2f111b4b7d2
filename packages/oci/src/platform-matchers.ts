import type { Platform } from './descriptor.ts';
import { normalizePlatform } from './platforms.ts';
import { windowsVersionFits } from './windows-versions.ts';

/** Which of the platforms that an image offers fit, and which fits best. The rules are containerd's, so that the same image is chosen. */

/** Chooses among platforms: which fit, and in what order (best first, as a sort comparator). */
export interface PlatformMatcher {
  match(platform: Platform): boolean;
  compare(a: Platform, b: Platform): number;
}

/** `wanted` is in normal form. An offer may need less of the wanted features, never others. */
function matches(wanted: Platform, offered: Platform): boolean {
  const other = normalizePlatform(offered);
  if (wanted.architecture !== other.architecture) return false;
  if ((wanted.variant ?? '') !== (other.variant ?? '')) return false;
  return matchesOs(wanted, other);
}

function matchesOs(wanted: Platform, other: Platform): boolean {
  if (wanted.os !== other.os) return false;
  if (wanted.os === 'windows' && !windowsVersionFits(wanted.osVersion, other.osVersion)) return false;
  return (other.osFeatures ?? []).every((feature) => wanted.osFeatures?.includes(feature));
}

const none = Number.POSITIVE_INFINITY;
const order = (a: number, b: number): number => (a === b ? 0 : a < b ? -1 : 1);

/** An offer that makes use of more of the wanted features is better. */
const byFeatures = (a: Platform, b: Platform): number => (b.osFeatures?.length ?? 0) - (a.osFeatures?.length ?? 0);

const withoutFeatures = ({ osFeatures: _, ...platform }: Platform): Platform => platform;

/** Lower ranks first, then more features; what does not fit is ordered as if it needed no features, and comes last. */
function comparator(rank: (platform: Platform) => number): PlatformMatcher['compare'] {
  return (a, b) => {
    const [ofA, ofB] = [rank(a), rank(b)];
    if (ofA === none && ofB === none) return order(rank(withoutFeatures(a)), rank(withoutFeatures(b)));
    return order(ofA, ofB) || byFeatures(a, b);
  };
}

/** Any of these, the earlier the better. */
export function orderedPlatforms(...platforms: Platform[]): PlatformMatcher {
  const wanted = platforms.map(normalizePlatform);
  const rank = (offered: Platform): number => {
    const index = wanted.findIndex((platform) => matches(platform, offered));
    return index < 0 ? none : index;
  };
  return { match: (platform) => rank(platform) !== none, compare: comparator(rank) };
}

/** Any of these, none better than another. */
export function anyOfPlatforms(...platforms: Platform[]): PlatformMatcher {
  const { match } = orderedPlatforms(...platforms);
  return { match, compare: comparator((platform) => (match(platform) ? 0 : none)) };
}

/** Every platform. */
export const allPlatforms: PlatformMatcher = { match: () => true, compare: () => 0 };

/** A platform and those its processor runs as well, best first: arm v7 runs v6 and v5, amd64 runs 386, arm64 runs arm. */
export function onlyPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms(...compatiblePlatforms(normalizePlatform(platform)));
}

/** Exactly this one. */
export function strictPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms(platform);
}

/** Whatever the processor, as long as the OS (with version and features) is this; the better processor first. */
export function onlyOs(platform: Platform): PlatformMatcher {
  const wanted = normalizePlatform(platform);
  const exact = orderedPlatforms(wanted);
  const match = (offered: Platform): boolean => matchesOs(wanted, normalizePlatform(offered));
  return {
    match,
    compare: (a, b) => {
      const fits = match(a);
      return fits !== match(b) ? (fits ? -1 : 1) : fits ? exact.compare(a, b) : 0;
    },
  };
}

function compatiblePlatforms(platform: Platform): Platform[] {
  const { variant = '', ...rest } = platform;
  const version = Number(variant.replace(/^v/, ''));
  const down = (from: number, to: number): Platform[] =>
    Array.from({ length: Math.max(0, from - to + 1) }, (_, index) => ({ ...rest, variant: `v${from - index}` }));
  switch (platform.architecture) {
    case 'amd64':
      return [platform, ...(version > 1 ? down(version - 1, 1) : []), { ...rest, architecture: '386' }];
    case 'arm':
      return [platform, ...(version > 5 ? down(version - 1, 5) : [])];
    case 'arm64':
      return compatibleArm64(variant === '' ? 'v8' : variant, rest);
    default:
      return [platform];
  }
}

/** v9.n includes v8.(n+5), and v8.n all below it; every arm64 also runs 32-bit arm v8 and below. */
function compatibleArm64(variant: string, rest: Omit<Platform, 'variant'>): Platform[] {
  const vector: Platform[] = [];
  const add = (major: number, from: number): void => {
    for (let step = from; step >= 0; step--) {
      vector.push({ ...rest, variant: step === 0 ? `v${major}` : `v${major}.${step}` });
    }
  };
  const found = /^v([89])(?:\.(\d))?$/.exec(variant);
  const minor = Number(found?.[2] ?? 0);
  if (found?.[1] === '9') add(9, minor);
  if (found) add(8, found[1] === '9' ? minor + 5 : minor);
  else vector.push({ ...rest, variant });
  const arm = /^v[89]\./.test(variant) ? 'v8' : variant;
  return [...vector, ...compatiblePlatforms({ ...rest, architecture: 'arm', variant: arm })];
}
