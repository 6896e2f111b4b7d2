import { rmSync } from 'node:fs';
import path from 'node:path';
import { hasErrno, kill } from '@gantry/sys';
import { endInFlight } from './in-flight.ts';
import { runRuntime } from './oci-runtime.ts';
import { type ContainerRecord, processStartTime, recordName } from './record.ts';
import { unmountRootfs } from './rootfs.ts';

/** Ends a container without its shim: killed and deleted by its runtime, rootfs unmounted, its record gone. */
export async function removeContainer(record: ContainerRecord): Promise<void> {
  await endInFlight(record.bundle, record.inFlight);
  const options = { logFile: path.join(record.bundle, 'log.json') };
  try {
    await runRuntime(record.runtime, ['delete', '--force', record.id], options);
  } catch (error) {
    // A runtime that has lost its own state has lost the container: the process itself is still known.
    process.stderr.write(`${path.basename(record.runtime.binary)} delete: ${(error as Error).message}\n`);
  }
  const { init } = record;
  if (init && processStartTime(init.pid) === init.startTime) {
    try {
      kill(init.pid, 'SIGKILL');
    } catch (error) {
      if (!hasErrno(error, 'ESRCH')) throw error;
    }
  }
  if (record.rootfsMounted) await unmountRootfs(record.bundle);
  rmSync(path.join(record.bundle, recordName), { force: true });
}
