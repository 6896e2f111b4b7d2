/** Protection of single files: the immutable attribute, and fs-verity (Linux: Documentation/filesystems/fsverity.rst). */
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { hasErrno, ioctlAsync } from '@gantry/sys';

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_IOC_ENABLE_VERITY = 0x40806685;
const IMMUTABLE = 0x10;
const VERITY = 0x100000;

async function flagsOf(fd: number): Promise<number> {
  const value = Buffer.alloc(8);
  await ioctlAsync(fd, FS_IOC_GETFLAGS, value);
  return value.readUInt32LE(0);
}

/** Sets or clears the immutable attribute. @throws ENOTTY or EOPNOTSUPP where the file system has none */
export async function setImmutable(file: string, on: boolean): Promise<void> {
  const handle = await open(file, 'r');
  try {
    const flags = await flagsOf(handle.fd);
    if (((flags & IMMUTABLE) !== 0) === on) return;
    const value = Buffer.alloc(8);
    value.writeUInt32LE(on ? flags | IMMUTABLE : flags & ~IMMUTABLE, 0);
    await ioctlAsync(handle.fd, FS_IOC_SETFLAGS, value);
  } finally {
    await handle.close();
  }
}

/** Has the kernel verify every read of the file from now on; it can never be written again. One that has it already is well. */
export async function enableVerity(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    // struct fsverity_enable_arg: version 1, SHA-256, blocks of 4096 bytes, no salt, no signature.
    const argument = Buffer.alloc(128);
    argument.writeUInt32LE(1, 0);
    argument.writeUInt32LE(1, 4);
    argument.writeUInt32LE(4096, 8);
    await ioctlAsync(handle.fd, FS_IOC_ENABLE_VERITY, argument);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
  } finally {
    await handle.close();
  }
}

export async function hasVerity(file: string): Promise<boolean> {
  const handle = await open(file, 'r');
  try {
    return ((await flagsOf(handle.fd)) & VERITY) !== 0;
  } finally {
    await handle.close();
  }
}

/** Why files in a directory cannot have fs-verity; undefined if they can. */
export async function verityProblem(directory: string): Promise<string | undefined> {
  const scratch = await mkdtemp(path.join(directory, '.fsverity-check-'));
  try {
    const file = path.join(scratch, 'supported');
    await writeFile(file, '');
    await enableVerity(file);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    await rm(scratch, { recursive: true });
  }
}
