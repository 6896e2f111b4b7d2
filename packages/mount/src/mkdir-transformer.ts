/** `mkdir/`: directories made before a mount, as overlayfs's upper and work directories on a filesystem just mounted. */
import { invalidArgument } from '@gantry/api';
import { AT, close, fchmodat, fchownat, fstatat, hasErrno, mkdirat, O, openat, S } from '@gantry/sys';
import type { AllowedRoots } from './allowed-roots.ts';
import type { Mount } from './mount.ts';
import type { MountTransformer } from './mount-handler.ts';

const prefix = 'X-containerd.mkdir.';

interface Wanted {
  path: string;
  mode: number;
  owner?: { uid: number; gid: number };
}

/** Makes the directories that options name (`X-containerd.mkdir.path=<dir>[:<mode>[:<uid>:<gid>]]`) and takes those options out. */
export function mkdirTransformer(roots: AllowedRoots): MountTransformer {
  return async (mount: Mount) => {
    const options: string[] = [];
    for (const option of mount.options) {
      if (!option.startsWith(prefix)) {
        options.push(option);
        continue;
      }
      const wanted = parse(option);
      await roots.within(wanted.path, 'mkdir', async (parent, name) => make(parent, name, wanted));
    }
    return { ...mount, options };
  };
}

function parse(option: string): Wanted {
  const rest = option.slice(prefix.length);
  const [path = '', mode, uid, gid, ...more] = rest.startsWith('path=') ? rest.slice('path='.length).split(':') : [];
  const complete = (uid === undefined) === (gid === undefined) && more.length === 0;
  if (path === '' || !complete) throw invalidArgument(`invalid mkdir option "${option}": invalid argument`);
  if (mode !== undefined && !/^0*[0-7]{1,3}$/.test(mode)) throw invalidArgument(`invalid mode ${mode}`);
  if (uid !== undefined && !/^\d{1,10}$/.test(uid)) throw invalidArgument(`invalid uid "${uid}": invalid argument`);
  if (gid !== undefined && !/^\d{1,10}$/.test(gid)) throw invalidArgument(`invalid gid "${gid}": invalid argument`);
  return {
    path,
    mode: mode === undefined ? 0o700 : Number.parseInt(mode, 8),
    ...(uid !== undefined && { owner: { uid: Number(uid), gid: Number(gid) } }),
  };
}

/** Afterwards the directory has the mode, and the owner if one is named, whether it was there before or not. */
function make(parent: number, name: string, { path, mode, owner }: Wanted): void {
  try {
    mkdirat(parent, name, mode);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
  }
  const stat = fstatat(parent, name);
  if ((stat.mode & S.IFMT) !== S.IFDIR) throw invalidArgument(`${path} is not a directory`);
  const fd = openat(parent, name, O.DIRECTORY | O.NOFOLLOW);
  try {
    if (owner && (stat.uid !== owner.uid || stat.gid !== owner.gid)) {
      fchownat(fd, '', owner.uid, owner.gid, AT.EMPTY_PATH);
    }
    if ((stat.mode & 0o777) !== mode) fchmodat(fd, '.', mode);
  } finally {
    close(fd);
  }
}
