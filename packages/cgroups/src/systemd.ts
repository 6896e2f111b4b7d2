/** systemd's names of groups: `slice:prefix:name`, and slices whose names spell out their path. */
import { invalidArgument } from '@gantry/api';

/** `a-b-c.slice` → `a.slice/a-b.slice/a-b-c.slice`; `-.slice` is the root, ''. */
export function expandSlice(slice: string): string {
  if (!slice.endsWith('.slice') || slice.length === 6 || slice.includes('/')) {
    throw invalidArgument(`invalid slice name: ${slice}`);
  }
  const name = slice.slice(0, -'.slice'.length);
  if (name === '-') return '';
  const parts = name.split('-');
  if (parts.includes('')) throw invalidArgument(`invalid slice name: ${slice}`);
  return parts.map((_, index) => `${parts.slice(0, index + 1).join('-')}.slice`).join('/');
}

/** A container's unit by systemd's cgroups. */
export interface SystemdUnit {
  slice: string;
  unit: string;
}

/** Whether an OCI cgroupsPath is systemd's form. */
export function isSystemdPath(cgroupsPath: string): boolean {
  return !cgroupsPath.startsWith('/') && cgroupsPath.split(':').length === 3;
}

/** `slice:prefix:name` → the slice (`system.slice` if none is named) and the scope, or the slice that `name` itself is. */
export function parseSystemdPath(cgroupsPath: string): SystemdUnit {
  const parts = cgroupsPath.split(':');
  if (parts.length !== 3) {
    throw invalidArgument(
      `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "${cgroupsPath}" instead`,
    );
  }
  const [slice, prefix, name] = parts as [string, string, string];
  if (name === '') throw invalidArgument(`cgroupsPath ${JSON.stringify(cgroupsPath)} names no unit`);
  const unit = name.endsWith('.slice') ? name : `${prefix === '' ? '' : `${prefix}-`}${name}.scope`;
  return { slice: slice || 'system.slice', unit };
}

/** The path of `slice:prefix:name` in the hierarchy, with a leading slash. */
export function systemdCgroupPath(cgroupsPath: string): string {
  const { slice, unit } = parseSystemdPath(cgroupsPath);
  const parent = expandSlice(slice);
  return `/${parent === '' ? '' : `${parent}/`}${unit}`;
}
