/** `mkfs/`: a filesystem image made before it is mounted, unless it is there already. */
import { execFile } from 'node:child_process';
import { truncate } from 'node:fs/promises';
import { promisify } from 'node:util';
import { invalidArgument, StatusError } from '@gantry/api';
import { close, fstatat, hasErrno, O, openat, renameat2, unlinkat } from '@gantry/sys';
import type { AllowedRoots } from './allowed-roots.ts';
import type { Mount } from './mount.ts';
import type { MountTransformer } from './mount-handler.ts';

const prefix = 'X-containerd.mkfs.';
const run = promisify(execFile);

interface Wanted {
  size: number;
  type: string;
  uuid: string;
}

/** Formats `source` as options say (`X-containerd.mkfs.size=`, `.fs=`, `.uuid=`) and takes those options out. */
export function mkfsTransformer(roots: AllowedRoots): MountTransformer {
  return async (mount: Mount) => {
    const wanted = parse(mount.options);
    const command = mkfsCommand(wanted);
    await roots.within(mount.source, 'mkfs', async (parent, name) => {
      if (!exists(parent, name)) await format(parent, name, command, wanted);
    });
    return { ...mount, options: mount.options.filter((option) => !option.startsWith(prefix)) };
  };
}

function parse(options: readonly string[]): Wanted {
  const wanted: Wanted = { size: 0, type: 'ext4', uuid: '' };
  for (const option of options) {
    if (!option.startsWith(prefix)) continue;
    const [, key = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(option.slice(prefix.length)) ?? [];
    if (key === 'size') wanted.size = parseSize(value);
    else if (key === 'fs') wanted.type = value;
    else if (key === 'uuid') wanted.uuid = value;
    else throw invalidArgument(`unknown mount option ${option}: invalid argument`);
  }
  if (wanted.size === 0) throw invalidArgument('mkfs requires mkfs.size option: invalid argument');
  if (wanted.uuid !== '' && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(wanted.uuid)) {
    throw invalidArgument(`bad option uuid: ${JSON.stringify(wanted.uuid)}`);
  }
  return wanted;
}

/** A size as people write it: `100MiB`, `20g`, `1048576`; units are powers of 1024. @throws InvalidArgument */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])i?b?|b)?$/i.exec(text.trim());
  const power = 'kmgtp'.indexOf((match?.[2] ?? '').toLowerCase());
  const size = match ? Math.floor(Number(match[1]) * 1024 ** (match[2] ? power + 1 : 0)) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw invalidArgument(`bad option size: invalid size: '${text}'`);
  return size;
}

function mkfsCommand({ type, uuid }: Wanted): string[] {
  switch (type) {
    case 'ext2':
    case 'ext3':
    case 'ext4':
      return [`mkfs.${type}`, '-q', ...(uuid === '' ? [] : ['-U', uuid])];
    case 'xfs':
      return ['mkfs.xfs', '-q', ...(uuid === '' ? [] : ['-m', `uuid=${uuid}`])];
    default:
      throw invalidArgument(`unsupported filesystem "${type}": invalid argument`);
  }
}

function exists(parent: number, name: string): boolean {
  try {
    fstatat(parent, name);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Under another name first: an image that is there is whole, also after a crash. */
async function format(parent: number, name: string, command: string[], { size }: Wanted): Promise<void> {
  const [program = '', ...args] = command;
  const temporary = `.${name}.mkfs`;
  if (exists(parent, temporary)) unlinkat(parent, temporary);
  close(openat(parent, temporary, O.RDWR | O.CREAT | O.EXCL, 0o640));
  const path = `/proc/${process.pid}/fd/${parent}/${temporary}`;
  try {
    await truncate(path, size);
    await run(program, [...args, path]).catch((error: Error & { stderr?: string }) => {
      throw StatusError.wrap(error, `failed format "${name}": ${program} failed: ${error.stderr?.trim() ?? ''}`);
    });
    renameat2(parent, temporary, parent, name);
  } catch (error) {
    unlinkat(parent, temporary);
    throw error;
  }
}
