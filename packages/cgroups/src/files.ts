/** Reading and writing the small files that cgroups are made of. A file that is not there means: this kernel does not tell. */
import { constants } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '@gantry/sys';

/** Where the kernel's files are; other places are for tests on recorded files. */
export interface Roots {
  /** The cgroup filesystem, /sys/fs/cgroup by default. */
  root?: string;
  /** /proc by default. */
  proc?: string;
}

export const rootOf = (roots: Roots = {}) => roots.root ?? '/sys/fs/cgroup';
export const procOf = (roots: Roots = {}) => roots.proc ?? '/proc';

/** What a limit of `max` is on the wire. */
export const unlimited = 0xffff_ffff_ffff_ffffn;

/** A file's text, undefined if there is none (or its cgroup is just going: ENODEV; or PSI is off: EOPNOTSUPP). */
export async function readText(directory: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(join(directory, name), 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENODEV', 'ENOTSUP', 'EOPNOTSUPP')) return undefined;
    throw error;
  }
}

/** One number; `max` is the largest there is. */
export async function readNumber(directory: string, name: string): Promise<bigint | undefined> {
  const text = (await readText(directory, name))?.trim();
  return text === undefined ? undefined : toNumber(text);
}

/** A number as the kernel prints it; 0 for what is none. A negative one (v1's "no limit") is the largest there is. */
export function toNumber(text: string | undefined): bigint {
  if (text === 'max') return unlimited;
  if (text === undefined || !/^-?\d+$/.test(text)) return 0n;
  const value = BigInt(text);
  return value < 0n ? unlimited : value;
}

/** Lines of `name number`. */
export function parseKeyed(text: string): Record<string, bigint> {
  const values: Record<string, bigint> = Object.create(null);
  for (const line of text.split('\n')) {
    const [name, value] = line.split(' ');
    if (name && value !== undefined) values[name] = toNumber(value);
  }
  return values;
}

export async function readKeyed(directory: string, name: string): Promise<Record<string, bigint> | undefined> {
  const text = await readText(directory, name);
  return text === undefined ? undefined : parseKeyed(text);
}

/** Lines of `subject a=1 b=2`, as io.stat and rdma.current have. */
export function parseNested(text: string): { subject: string; values: Record<string, string> }[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [subject = '', ...pairs] = line.split(/\s+/);
      const values: Record<string, string> = Object.create(null);
      for (const pair of pairs) {
        const equals = pair.indexOf('=');
        if (equals > 0) values[pair.slice(0, equals)] = pair.slice(equals + 1);
      }
      return { subject, values };
    });
}

/** Writes a value in one write, off the main thread (it may wait for the kernel). The file must exist. */
export async function writeValue(directory: string, name: string, value: string | number | bigint): Promise<void> {
  const file = await open(join(directory, name), constants.O_WRONLY);
  try {
    await file.write(String(value));
  } finally {
    await file.close();
  }
}

/** The process numbers in cgroup.procs. */
export async function readPids(directory: string): Promise<number[]> {
  const text = await readFile(join(directory, 'cgroup.procs'), 'utf8');
  return text.split('\n').filter(Boolean).map(Number);
}
