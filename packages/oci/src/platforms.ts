import { arch } from 'node:os';
import { invalidArgument } from '@gantry/api';
import type { Platform } from './descriptor.ts';

/**
 * Platforms such as `linux/arm64/v8`: parsing, normal form, and which of several an image offers fits best. The rules are
 * containerd's, so that the same image is chosen.
 */

const knownOs = new Set(
  'aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos'.split(
    ' ',
  ),
);
const knownArchitectures = new Set(
  `386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc
   riscv riscv64 s390 s390x sparc sparc64 wasm`.split(/\s+/),
);

const nodeArchitectures: Record<string, string> = { x64: 'amd64', ia32: '386', mipsel: 'mipsle' };

/** This machine's, by Go's names. */
export function hostArchitecture(): string {
  const name = arch();
  return nodeArchitectures[name] ?? name;
}

/** Gantry runs on Linux; the variant is that which the normal form leaves out (amd64 v1, arm64 v8) or arm's v7. */
export function defaultPlatform(): Platform {
  const architecture = hostArchitecture();
  return { os: 'linux', architecture, ...(architecture === 'arm' && { variant: 'v7' }) };
}

function normalizeOs(os: string): string {
  const lower = os.toLowerCase();
  return lower === '' ? 'linux' : lower === 'macos' ? 'darwin' : lower;
}

function normalizeArchitecture(architecture: string, variant: string): [string, string] {
  const name = architecture.toLowerCase();
  const kind = variant.toLowerCase();
  switch (name) {
    case 'i386':
      return ['386', ''];
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return ['amd64', kind === 'v1' ? '' : kind];
    case 'aarch64':
    case 'arm64':
      if (['8', 'v8', 'v8.0'].includes(kind)) return ['arm64', ''];
      return ['arm64', ['9', '9.0', 'v9.0'].includes(kind) ? 'v9' : kind];
    case 'armhf':
      return ['arm', 'v7'];
    case 'armel':
      return ['arm', 'v6'];
    case 'arm':
      if (kind === '' || kind === '7') return ['arm', 'v7'];
      return ['arm', ['5', '6', '8'].includes(kind) ? `v${kind}` : kind];
    default:
      return [name, kind];
  }
}

function make(os: string, [architecture, variant]: [string, string], version?: string, features?: string[]): Platform {
  return {
    os,
    architecture,
    ...(variant && { variant }),
    ...(version && { osVersion: version }),
    ...(features && features.length > 0 && { osFeatures: features }),
  };
}

/** The form in which equal platforms are equal: aliases replaced, default variants left out, features in order. */
export function normalizePlatform(platform: Platform): Platform {
  const features = platform.osFeatures && [...new Set(platform.osFeatures)].sort();
  return make(
    normalizeOs(platform.os),
    normalizeArchitecture(platform.architecture, platform.variant ?? ''),
    platform.osVersion,
    features,
  );
}

const osPattern = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$/;
const partPattern = /^[A-Za-z0-9_.-]+$/;

/**
 * Reads `<os>[(<version>[+<feature>]*)]`, `<architecture>`, or `<os>/<architecture>[/<variant>]`.
 * @throws InvalidArgument
 */
export function parsePlatform(specifier: string): Platform {
  if (specifier.includes('*')) throw invalidArgument(`"${specifier}": wildcards not yet supported`);
  const parts = specifier.split('/');
  const first = parts[0] ?? '';
  const found = osPattern.exec(first);
  if (!found) {
    throw invalidArgument(
      `"${first}" is an invalid OS component of "${specifier}": OSAndVersion specifier component must match "${osPattern.source}"`,
    );
  }
  for (const part of parts.slice(1)) {
    if (!partPattern.test(part)) {
      throw invalidArgument(
        `"${part}" is an invalid component of "${specifier}": platform specifier component must match "${partPattern.source}"`,
      );
    }
  }
  const os = normalizeOs(found[1] ?? '');
  const version = decodeOption(found[2] ?? '', specifier);
  const features = (found[3] ?? '')
    .split('+')
    .filter((feature) => feature !== '')
    .map((feature) => decodeOption(feature, specifier));
  if (parts.length === 1) {
    if (knownOs.has(os)) return make(os, [hostArchitecture(), ''], version, features);
    const [architecture, variant] = normalizeArchitecture(first, '');
    if (knownArchitectures.has(architecture)) {
      return make('linux', [architecture, architecture === 'arm' && variant === 'v7' ? '' : variant]);
    }
    throw invalidArgument(`"${specifier}": unknown operating system or architecture`);
  }
  if (parts.length > 3) throw invalidArgument(`"${specifier}": cannot parse platform specifier`);
  let [architecture, variant] = normalizeArchitecture(parts[1] ?? '', parts[2] ?? '');
  if (parts.length === 2 && architecture === 'arm' && variant === 'v7') variant = '';
  if (parts.length === 3 && architecture === 'arm64' && variant === '') variant = 'v8';
  return make(os, [architecture, variant], version, features);
}

function decodeOption(text: string, specifier: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    throw invalidArgument(`"${specifier}" has an invalid OS option "${text}"`, error);
  }
}

/** `linux/arm64/v8`; `unknown` without an OS. */
export function formatPlatform(platform: Platform): string {
  if (platform.os === '') return 'unknown';
  return [platform.os, platform.architecture, platform.variant ?? ''].filter((part) => part !== '').join('/');
}

/** The same with OS version and features: `windows(10.0.17763+win32k)/amd64`. */
export function formatPlatformAll(platform: Platform): string {
  const features = platform.osFeatures ?? [];
  if (platform.os === '' || (!platform.osVersion && features.length === 0)) return formatPlatform(platform);
  const options = `${platform.osVersion ?? ''}${features.map((feature) => `+${feature}`).join('')}`;
  return formatPlatform({ ...platform, os: `${platform.os}(${options})` });
}

/** Chooses among platforms: which fit, and in what order (best first, as a sort comparator). */
export interface PlatformMatcher {
  match(platform: Platform): boolean;
  compare(a: Platform, b: Platform): number;
}

/** Windows images fit a host by their build number; without a wanted version every one does. */
function osVersionMatches(wanted: string | undefined, offered: string | undefined): boolean {
  if (!wanted || !offered) return true;
  const build = (version: string): string => version.split('.').slice(0, 3).join('.');
  return build(wanted) === build(offered);
}

function matches(wanted: Platform, offered: Platform): boolean {
  const other = normalizePlatform(offered);
  if (wanted.os !== other.os || wanted.architecture !== other.architecture) return false;
  if ((wanted.variant ?? '') !== (other.variant ?? '')) return false;
  return matchesOs(wanted, other);
}

function matchesOs(wanted: Platform, other: Platform): boolean {
  if (wanted.os !== other.os) return false;
  if (wanted.os === 'windows') return osVersionMatches(wanted.osVersion, other.osVersion);
  return (other.osFeatures ?? []).every((feature) => wanted.osFeatures?.includes(feature));
}

const first = (index: number): number => (index < 0 ? Number.POSITIVE_INFINITY : index);
const order = (a: number, b: number): number => (a === b ? 0 : a < b ? -1 : 1);

/** Of an offer with more of the wanted features, more is better. */
const byFeatures = (a: Platform, b: Platform): number => (b.osFeatures?.length ?? 0) - (a.osFeatures?.length ?? 0);

/** Any of these, the earlier the better. */
export function orderedPlatforms(...platforms: Platform[]): PlatformMatcher {
  const wanted = platforms.map(normalizePlatform);
  const rank = (offered: Platform): number => first(wanted.findIndex((platform) => matches(platform, offered)));
  return {
    match: (platform) => rank(platform) !== Number.POSITIVE_INFINITY,
    compare: (a, b) => order(rank(a), rank(b)) || byFeatures(a, b),
  };
}

/** Any of these, none better than another. */
export function anyOfPlatforms(...platforms: Platform[]): PlatformMatcher {
  const ordered = orderedPlatforms(...platforms);
  return {
    match: ordered.match,
    compare: (a, b) => order(ordered.match(a) ? 0 : 1, ordered.match(b) ? 0 : 1),
  };
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
  const rank = (offered: Platform): number =>
    matches(wanted, offered) ? 0 : matchesOs(wanted, normalizePlatform(offered)) ? 1 : 2;
  return { match: (offered) => rank(offered) < 2, compare: (a, b) => order(rank(a), rank(b)) };
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
  const found = /^v([89])(?:\.(\d+))?$/.exec(variant);
  const vector: Platform[] = [];
  if (!found) return [{ ...rest, variant }];
  const minor = Number(found[2] ?? 0);
  const add = (major: number, from: number): void => {
    for (let step = from; step >= 0; step--) {
      vector.push({ ...rest, variant: step === 0 ? `v${major}` : `v${major}.${step}` });
    }
  };
  if (found[1] === '9') {
    add(9, minor);
    add(8, Math.min(minor + 5, 9));
  } else {
    add(8, minor);
  }
  return [...vector, ...compatiblePlatforms({ ...rest, architecture: 'arm', variant: 'v8' })];
}
