// Who a container's process is: names are looked up in the container's own files.
import type { SpecUser } from '@gantry/oci';

/** The text of a file of the container's root, undefined if there is none. */
export type FileReader = (path: string) => string | undefined;

interface Passwd {
  name: string;
  uid: number;
  gid: number;
}

interface Group {
  name: string;
  gid: number;
  members: string[];
}

const largest = 0xffff_ffff;

function rows(text: string | undefined, fields: number): string[][] {
  return (text ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'))
    .filter((row) => row.length >= fields);
}

const isNumber = (text: string): boolean => /^\d+$/.test(text);

function passwd(read: FileReader): Passwd[] {
  return rows(read('etc/passwd'), 4).map(([name, , uid, gid]) => ({ name: name!, uid: Number(uid), gid: Number(gid) }));
}

function groups(read: FileReader): Group[] {
  return rows(read('etc/group'), 3).map(([name, , gid, members]) => ({
    name: name!,
    gid: Number(gid),
    members: members ? members.split(',') : [],
  }));
}

function parseId(text: string, what: string): number {
  const id = Number(text);
  if (id > largest) throw new Error(`${what} ${text} is too large`);
  return id;
}

/** `user`, `uid`, `user:group`, `uid:gid` in any mixture. @throws Error if a name is not known */
export function lookUpUser(text: string, read: FileReader): Pick<SpecUser, 'uid' | 'gid'> {
  const parts = text.split(':');
  const [user = '', group] = parts;
  if (user === '' || group === '' || parts.length > 2) throw new Error(`invalid USER value ${text}`);
  const byNumber = isNumber(user);
  const found =
    byNumber && group !== undefined && isNumber(group)
      ? undefined
      : passwd(read).find((row) => (byNumber ? row.uid === Number(user) : row.name === user));
  if (!byNumber && !found) throw new Error('no users found');
  const uid = found?.uid ?? parseId(user, 'uid');
  if (group === undefined) return { uid, gid: found?.gid ?? 0 };
  if (isNumber(group)) return { uid, gid: parseId(group, 'gid') };
  const named = groups(read).find((row) => row.name === group);
  if (!named) throw new Error('no groups found');
  return { uid, gid: named.gid };
}

/** The groups that list a user as a member, with its own group first. `text` may have a group, which is not looked at. */
export function additionalGroups(text: string, gid: number, read: FileReader): number[] {
  const [user = ''] = text.split(':');
  const name = isNumber(user) ? passwd(read).find((row) => row.uid === Number(user))?.name : user;
  const gids = name === undefined ? [] : groups(read).filter((row) => row.members.includes(name));
  return [...new Set([gid, ...gids.map((row) => row.gid)])];
}
