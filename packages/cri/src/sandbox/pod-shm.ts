import { mkdir } from 'node:fs/promises';
import { mountAll } from '@gantry/mount';

/** Where a pod's shared memory is, in its directory. */
export function shmOf(directory: string): string {
  return `${directory}/shm`;
}

/** A tmpfs of 64 MiB for the pod's shared memory. */
export async function mountShm(shm: string): Promise<void> {
  await mkdir(shm, { recursive: true, mode: 0o700 });
  await mountAll(
    [{ type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'] }],
    shm,
  );
}
