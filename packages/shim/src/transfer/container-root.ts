import { readFileSync } from 'node:fs';
import path from 'node:path';
import { notFound, unimplemented } from '@gantry/api';
import { type IdMaps, type IdRange, parseIdMap } from '@gantry/archive/tree-copy/id-maps.ts';
import { parseJson, type RuntimeSpec, type SpecIdMapping } from '@gantry/oci';
import { AT_FDCWD, close, hasErrno, O, openat } from '@gantry/sys';
import type { Container } from '../container.ts';
import { isNative } from '../oci-runtime.ts';
import { processStartTime } from '../record.ts';

/** A container's file system as whoever lives in it sees it. */
export interface ContainerRoot {
  /** Descriptor of its root directory, good for looking up names only. To be closed. */
  fd: number;
  /** Of its user namespace. */
  ids: IdMaps;
}

/**
 * The root of a container: while it runs that of its process, with all that is mounted there; afterwards what its runtime was given,
 * without volumes. @throws StatusError NotFound, Unimplemented for runtimes whose processes are not the host's
 */
export function openContainerRoot(container: Container): ContainerRoot {
  const { init, identity } = container;
  if (!init.isRunning) return openBundleRoot(identity.bundle);
  if (!isNative(identity.runtime))
    throw unimplemented(`files of containers of ${path.basename(identity.runtime.binary)} cannot be copied`);
  const proc = `/proc/${init.pid}`;
  try {
    const fd = openat(AT_FDCWD, `${proc}/root`, O.PATH | O.DIRECTORY);
    try {
      const ids = idMaps(readFileSync(`${proc}/uid_map`, 'utf8'), readFileSync(`${proc}/gid_map`, 'utf8'));
      // Its number may have gone to another process meanwhile.
      if (processStartTime(init.pid) !== init.startTime) throw notFound('process already finished');
      return { fd, ids };
    } catch (error) {
      close(fd);
      throw error;
    }
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) throw notFound('process already finished', error);
    throw error;
  }
}

function openBundleRoot(bundle: string): ContainerRoot {
  const spec = parseJson<RuntimeSpec>(readFileSync(path.join(bundle, 'config.json')));
  const fd = openat(AT_FDCWD, path.resolve(bundle, spec.root?.path ?? 'rootfs'), O.PATH | O.DIRECTORY);
  const { uidMappings, gidMappings } = spec.linux ?? {};
  const uid = ranges(uidMappings);
  const gid = ranges(gidMappings);
  return { fd, ids: { ...(uid && { uid }), ...(gid && { gid }) } };
}

function ranges(mappings: readonly SpecIdMapping[] | undefined): IdRange[] | undefined {
  if (!mappings || mappings.length === 0) return undefined;
  return mappings.map(({ containerID, hostID, size }) => ({ inside: containerID, outside: hostID, size }));
}

function idMaps(uidMap: string, gidMap: string): IdMaps {
  const uid = parseIdMap(uidMap);
  const gid = parseIdMap(gidMap);
  return { ...(uid && { uid }), ...(gid && { gid }) };
}
