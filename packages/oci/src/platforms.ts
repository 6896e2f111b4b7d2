import { arch } from 'node:os';
import { invalidArgument } from '@gantry/api';
import type { Platform } from './descriptor.ts';

/** Platforms such as `linux/arm64/v8`: parsing and normal form, by containerd's rules. */

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

/** The same with OS version and features: `windows(10.0.17763+win32k)/amd64`. What it gives can be parsed again. */
export function formatPlatformAll(platform: Platform): string {
  const features = [...(platform.osFeatures ?? [])].sort();
  if (platform.os === '' || (!platform.osVersion && features.length === 0)) return formatPlatform(platform);
  const options = [platform.osVersion ?? '', ...features].map(encodeOption).join('+');
  return formatPlatform({ ...platform, os: `${platform.os}(${options})` });
}

/** The characters that a specifier gives a meaning. */
function encodeOption(text: string): string {
  return text.replace(/[%+()/]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}
