import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { defaultAppArmorProfile } from '@gantry/oci';

const loadedProfiles = '/sys/kernel/security/apparmor/profiles';

/** Loads the default AppArmor profile under a name, unless there is one of that name. @throws Error without AppArmor */
export function loadDefaultProfile(name: string): void {
  const text = defaultAppArmorProfile(name);
  let loaded: string;
  try {
    loaded = readFileSync(loadedProfiles, 'utf8');
  } catch (reason) {
    const why = (reason as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file or directory' : String(reason);
    throw new Error(`open ${loadedProfiles}: ${why}`);
  }
  if (loaded.split('\n').some((line) => line.startsWith(`${name} (`))) return;
  const { status, error, stderr } = spawnSync('apparmor_parser', ['-Kr'], { input: text, encoding: 'utf8' });
  if (error) throw new Error(`load apparmor profile ${name}: ${error.message}`);
  if (status !== 0) throw new Error(`load apparmor profile ${name}: apparmor_parser: ${stderr.trim()}`);
}
