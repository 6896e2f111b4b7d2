import { unknown } from '@gantry/api';

/** Versions of the CNI specification: `major.minor.micro`. */

/** Those whose configurations and results are understood, oldest first. */
export const knownVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

export type CniVersion = (typeof knownVersions)[number];

export const newestVersion: CniVersion = '1.1.0';

export function isKnownVersion(version: string): version is CniVersion {
  return (knownVersions as readonly string[]).includes(version);
}

/** Negative, zero or positive, as the first is older, the same or newer. '' is the first version. @throws StatusError */
export function compareVersions(left: string, right: string): number {
  const [a, b] = [parts(left), parts(right)];
  const at = a.findIndex((number, index) => number !== b[index]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}

function parts(version: string): number[] {
  const text = version === '' ? '0.1.0' : version;
  if (!/^\d+(\.\d+){0,2}$/.test(text)) throw unknown(`failed to parse CNI version ${JSON.stringify(version)}`);
  const numbers = text.split('.').map(Number);
  return [numbers[0] ?? 0, numbers[1] ?? 0, numbers[2] ?? 0];
}

/** Whether a network of that version knows a command: CHECK since 0.4.0, GC and STATUS since 1.1.0. */
export function knowsCommand(version: string, command: 'CHECK' | 'GC' | 'STATUS'): boolean {
  return compareVersions(version, command === 'CHECK' ? '0.4.0' : '1.1.0') >= 0;
}

/** Of several that a network can be of, the newest that is known here; `cniVersion` alone if there are none. */
export function negotiateVersion(cniVersion: string, cniVersions: readonly string[]): string {
  const usable = [...cniVersions, ...(cniVersion === '' ? [] : [cniVersion])]
    .filter((version) => compareVersions(version, newestVersion) <= 0)
    .sort(compareVersions);
  return usable.at(-1) ?? cniVersion;
}
