import { invalidArgument, type StatusError, unknown } from '@gantry/api';
import type { SpecUser } from '@gantry/oci';

/** Who a process runs as, by the user and group files of its image. */

/** /etc/passwd and /etc/group of an image, '' where there is none. */
export interface UserFiles {
  passwd: string;
  group: string;
}

interface Account {
  name: string;
  uid: number;
  gid: number;
}

function accounts({ passwd }: UserFiles): Account[] {
  return lines(passwd).map((fields) => ({
    name: fields[0] ?? '',
    uid: Number.parseInt(fields[2] ?? '', 10),
    gid: Number.parseInt(fields[3] ?? '', 10),
  }));
}

function groups({ group }: UserFiles): { name: string; gid: number; members: string[] }[] {
  return lines(group).map((fields) => ({
    name: fields[0] ?? '',
    gid: Number.parseInt(fields[2] ?? '', 10),
    members: (fields[3] ?? '').split(',').filter((member) => member !== ''),
  }));
}

function lines(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

const isNumber = (text: string): boolean => /^-?\d+$/.test(text);
/** Beyond it lie numbers that some programs take for negative ones. */
const maxId = 0x7fffffff;

/** An id as the kernel takes it. */
function idOf(text: string, kind: 'uid' | 'gid', of: string): number {
  const id = Number(text);
  if (id < 0 || id > maxId) throw invalidArgument(`invalid USER value ${JSON.stringify(of)}: ${kind} out of range`);
  return id;
}

/** @throws InvalidArgument: no program would be meant by it */
export function groupWithoutUser(group: bigint): StatusError {
  return invalidArgument(`failed to generate user string: user group "${group}" is specified without user`);
}

/**
 * Resolves `user`, `uid`, `user:group`, `uid:gid`, …; '' is root. A number needs no entry.
 * @throws Unknown for a name that the files do not have
 */
export function resolveUser(text: string, files: UserFiles): SpecUser {
  const [user = '', group] = text.split(':');
  const known = accounts(files);
  let account: Account | undefined;
  if (user === '') account = { name: '', uid: 0, gid: known.find(({ uid }) => uid === 0)?.gid ?? 0 };
  else if (isNumber(user)) {
    const uid = idOf(user, 'uid', text);
    account = known.find((candidate) => candidate.uid === uid) ?? { name: '', uid, gid: 0 };
  } else account = known.find(({ name }) => name === user);
  if (!account) throw unknown(`unable to find user ${user}: no users found`);
  return { uid: account.uid, gid: group ? resolveGroup(group, files, text) : account.gid };
}

function resolveGroup(text: string, files: UserFiles, of: string): number {
  if (isNumber(text)) return idOf(text, 'gid', of);
  const found = groups(files).find(({ name }) => name === text);
  if (!found) throw unknown(`unable to find group ${text}: no groups found`);
  return found.gid;
}

/** Groups that list the user as a member in the image. */
export function memberships(text: string, files: UserFiles): number[] {
  const [user = ''] = text.split(':');
  const name = isNumber(user) || user === '' ? nameOf(user === '' ? 0 : Number(user), files) : user;
  if (name === undefined) return [];
  return groups(files)
    .filter(({ members }) => members.includes(name))
    .map(({ gid }) => gid);
}

function nameOf(uid: number, files: UserFiles): string | undefined {
  return accounts(files).find((account) => account.uid === uid)?.name;
}

export interface GroupRequest {
  /** As for `resolveUser`. */
  user: string;
  supplemental: readonly bigint[];
  /** Only those asked for, whatever the image's files say. */
  strict: boolean;
}

/** The whole of it: user, group and additional groups, the primary one among them. @throws InvalidArgument for an id that is none */
export function processUser(request: GroupRequest, files: UserFiles): SpecUser {
  const user = resolveUser(request.user, files);
  const own = request.strict ? [] : memberships(request.user, files);
  const supplemental = request.supplemental.map((gid) => {
    if (gid < 0n || gid > maxId) throw invalidArgument(`supplemental group ${gid} is out of range: invalid argument`);
    return Number(gid);
  });
  return { ...user, additionalGids: [...new Set([user.gid, ...own, ...supplemental])].sort((a, b) => a - b) };
}
