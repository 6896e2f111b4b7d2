import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import type { Device, LinuxContainerSecurityContext } from '@gantry/api/gen/cri/v1/api_pb.js';
import { deviceNumbers, type RuntimeSpec, type SpecDevice, withDevice } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';

/** Devices of the host in containers. */

interface FoundDevice {
  /** Below the path that was asked for, '' for itself. */
  relative: string;
  device: Omit<SpecDevice, 'path'>;
}

async function deviceAt(file: string): Promise<Omit<SpecDevice, 'path'> | undefined> {
  const info = await stat(file);
  const type = info.isCharacterDevice() ? 'c' : info.isBlockDevice() ? 'b' : undefined;
  if (!type) return undefined;
  return { type, ...deviceNumbers(info.rdev), fileMode: info.mode & 0o7777, uid: info.uid, gid: info.gid };
}

/** A device, or those in a directory. */
async function devicesAt(file: string): Promise<FoundDevice[]> {
  if (!(await stat(file)).isDirectory()) {
    const device = await deviceAt(file);
    if (!device) throw invalidArgument(`${file} is not a device node: invalid argument`);
    return [{ relative: '', device }];
  }
  const found: FoundDevice[] = [];
  for (const entry of await readdir(file, { withFileTypes: true, recursive: true })) {
    if (!entry.isCharacterDevice() && !entry.isBlockDevice()) continue;
    const full = path.join(entry.parentPath, entry.name);
    const device = await deviceAt(full);
    if (device) found.push({ relative: path.relative(file, full), device });
  }
  return found;
}

/**
 * Those asked for. @param owner where they belong to the user and group that the configuration names, if they are not root
 * @throws InvalidArgument for what is none
 */
export async function applyDevices(
  spec: RuntimeSpec,
  asked: readonly Device[],
  owner: Pick<LinuxContainerSecurityContext, 'runAsUser' | 'runAsGroup'> | undefined,
): Promise<void> {
  const uid = Number(owner?.runAsUser?.value ?? 0);
  const gid = Number(owner?.runAsGroup?.value ?? 0);
  for (const { containerPath, hostPath, permissions } of asked) {
    let devices: FoundDevice[];
    try {
      devices = await devicesAt(await realpath(hostPath));
    } catch (error) {
      if (hasErrno(error, 'ENOENT'))
        throw invalidArgument(`device "${hostPath}" does not exist: no such file or directory`, error);
      throw error;
    }
    for (const { relative, device } of devices) {
      const own = { ...(uid !== 0 && { uid }), ...(gid !== 0 && { gid }) };
      withDevice(spec, { path: path.join(containerPath || hostPath, relative), ...device, ...own }, permissions);
    }
  }
}

/** Not for containers, however privileged: they have their own. */
const excluded = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', '.lxc', '.lxd-mounts', '.udev']);

/** Every device of the host. */
export async function applyHostDevices(spec: RuntimeSpec): Promise<void> {
  spec.linux ??= {};
  const devices: SpecDevice[] = [];
  const walk = async (directory: string): Promise<void> => {
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const full = path.join(directory, entry.name);
      if (entry.isDirectory()) {
        if (!excluded.has(entry.name)) await walk(full);
      } else if ((entry.isCharacterDevice() || entry.isBlockDevice()) && entry.name !== 'console') {
        try {
          const device = await deviceAt(full);
          if (device) devices.push({ path: full, ...device });
        } catch (error) {
          if (!hasErrno(error, 'ENOENT')) throw error;
        }
      }
    }
  };
  await walk('/dev');
  spec.linux.devices = [...(spec.linux.devices ?? []), ...devices];
}
