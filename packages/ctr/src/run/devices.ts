// Device nodes of the host, as the runtime spec describes them.
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { deviceNumbers, type SpecDevice } from '@gantry/oci';

/** A device node. With `target` it gets another path in the container. @throws Error if there is no such device */
export function hostDevice(file: string, target = file): SpecDevice {
  const stat = statSync(file);
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) throw new Error(`${file} is not a device node`);
  return {
    path: target,
    type: stat.isBlockDevice() ? 'b' : 'c',
    ...deviceNumbers(stat.rdev),
    fileMode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
  };
}

/** Directories of /dev that a container has for itself. */
const own = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev']);

/** All device nodes beneath a directory; links are not followed. */
export function hostDevices(directory: string): SpecDevice[] {
  const devices: SpecDevice[] = [];
  for (const entry of readdirSync(directory, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(directory, entry.name);
    if (entry.isDirectory()) {
      if (!own.has(entry.name)) devices.push(...hostDevices(file));
    } else if ((entry.isCharacterDevice() || entry.isBlockDevice()) && entry.name !== 'console') {
      try {
        devices.push(hostDevice(file));
      } catch (reason) {
        // A node may go while it is looked at.
        if ((reason as NodeJS.ErrnoException).code !== 'ENOENT') throw reason;
      }
    }
  }
  return devices;
}
