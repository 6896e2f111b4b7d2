import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Which containers share a shim process: all of a daemon's namespace, those of a pod or group, or none. */
export type Grouping = 'shared' | 'sandbox' | 'container';

/** The names that one shim process has on the machine. */
export interface GroupPaths {
  /** Hex digest that the other names are made of. */
  key: string;
  /** The ttrpc socket of the task services. */
  socket: string;
  /** The control socket: reservations from `start`. */
  control: string;
  /** The socket of the thread that watches the main one, if there is one. */
  watch: string;
  /** Log of the server process. */
  log: string;
  /** One file for each container of the group; its content is the container's bundle. */
  containers: string;
  /** The same of its sandboxes. */
  sandboxes: string;
  /** Abstract socket that is bound while a server is being started: a lock that dies with its holder. */
  lock: string;
  /** Abstract socket that the group's server holds for as long as it lives: never two at once, whoever started them. */
  serving: string;
}

export const defaultSocketDir = '/run/gantry/s';
/** What sun_path holds, less the terminating zero and the longest suffix used here. */
const socketPathMax = 107 - '.p'.length;

const groupAnnotations = ['io.containerd.runc.v2.group', 'io.kubernetes.cri.sandbox-id'];

/** The grouping setting. @throws Error if it names none of the three. */
export function groupingFrom(value: string | undefined): Grouping {
  if (!value) return 'shared';
  if (value === 'shared' || value === 'sandbox' || value === 'container') return value;
  throw new Error(`GANTRY_SHIM_GROUPING=${value}: expected shared, sandbox or container`);
}

/** The group a container asks for by annotation in its bundle's config.json; else its own id. */
export function annotatedGroup(bundle: string, id: string): string {
  const spec = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')) as {
    annotations?: Record<string, string>;
  };
  for (const name of groupAnnotations) {
    const group = spec.annotations?.[name];
    if (group) return group;
  }
  return id;
}

/**
 * The paths of a group. The same daemon address, namespace, options and group always give the same ones.
 * @throws Error if the directory's name is too long for a unix socket in it.
 */
export function groupPaths(
  socketDir: string,
  parts: { ttrpcAddress: string; namespace: string; optionsKey: string; group: string },
): GroupPaths {
  const hash = createHash('sha256');
  for (const part of [parts.ttrpcAddress, parts.namespace, parts.optionsKey, parts.group]) hash.update(`${part}\0`);
  return pathsOf(socketDir, hash.digest('hex'));
}

function pathsOf(socketDir: string, digest: string): GroupPaths {
  const room = socketPathMax - socketDir.length - 1;
  if (room < 16) throw new Error(`socket directory ${socketDir}: its name is too long for a unix socket below it`);
  const key = digest.slice(0, Math.min(room, digest.length));
  const base = path.join(socketDir, key);
  return {
    key,
    socket: base,
    control: `${base}.c`,
    watch: `${base}.w`,
    log: `${base}.log`,
    containers: `${base}.d`,
    sandboxes: `${base}.sb`,
    lock: `\0gantry-shim/${createHash('sha256').update(base).digest('hex')}`,
    serving: `\0gantry-shim-serving/${createHash('sha256').update(base).digest('hex')}`,
  };
}

/** The paths again from the socket's own, as the server process is given it. */
export function groupPathsOfSocket(socket: string): GroupPaths {
  return pathsOf(path.dirname(socket), path.basename(socket));
}

/** What a server says that finds another serving its group. */
export const takenMessage = 'taken: another server has this group';
