import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { invalidArgument } from '@gantry/api';
import { type SecurityProfile, SecurityProfile_ProfileType } from '@gantry/api/gen/cri/v1/api_pb.js';
import { hasErrno } from '@gantry/sys';

/** The profile that containers get by default. */
export const defaultAppArmorProfile = 'cri-containerd.apparmor.d';

/** Whether this kernel confines programs by AppArmor. */
export function hasAppArmor(): boolean {
  try {
    return readFileSync('/sys/module/apparmor/parameters/enabled', 'latin1').startsWith('Y');
  } catch {
    return false;
  }
}

/**
 * The profile to run under; undefined for none. @param enabled whether the kernel has AppArmor and the configuration lets us use it
 * @throws InvalidArgument for one that cannot be had
 */
export async function appArmorProfile(
  profile: SecurityProfile | undefined,
  oldName: string,
  privileged: boolean,
  enabled: boolean,
): Promise<string | undefined> {
  const type = profile?.profileType ?? typeOfName(oldName);
  const name = (profile?.localhostRef || oldName).replace(/^localhost\//, '');
  if (!enabled) {
    // What is only the default is not insisted on.
    if (type === SecurityProfile_ProfileType.Localhost) throw invalidArgument('apparmor is not supported');
    return undefined;
  }
  if (privileged && !profile) return undefined;
  switch (type) {
    case SecurityProfile_ProfileType.Unconfined:
      return undefined;
    case SecurityProfile_ProfileType.Localhost:
      if (!(await isLoaded(name))) throw invalidArgument(`apparmor profile not found ${name}`);
      return name;
    default:
      return (await isLoaded(defaultAppArmorProfile)) ? defaultAppArmorProfile : undefined;
  }
}

function typeOfName(name: string): SecurityProfile_ProfileType {
  if (name === '' || name === 'runtime/default') return SecurityProfile_ProfileType.RuntimeDefault;
  return name === 'unconfined' ? SecurityProfile_ProfileType.Unconfined : SecurityProfile_ProfileType.Localhost;
}

async function isLoaded(name: string): Promise<boolean> {
  try {
    const text = await readFile('/sys/kernel/security/apparmor/profiles', 'utf8');
    return text.split('\n').some((line) => line.startsWith(`${name} (`));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EACCES')) return false;
    throw error;
  }
}
