import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { invalidArgument, unknown } from '@gantry/api';
import { type SecurityProfile, SecurityProfile_ProfileType } from '@gantry/api/gen/cri/v1/api_pb.js';
import { runProgram } from '@gantry/daemon/core/programs/run-program.ts';
import { defaultAppArmorProfile as defaultProfileText } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';

const parser = '/sbin/apparmor_parser';

/** The profile that containers get by default. */
export const defaultAppArmorProfile = 'cri-containerd.apparmor.d';

/** Whether programs of this machine can be confined by AppArmor; not from inside a container, whose profiles are its host's. */
export function hasAppArmor(root = '', environment: NodeJS.ProcessEnv = process.env): boolean {
  if (environment['container'] !== undefined) return false;
  if (!existsSync(`${root}/sys/kernel/security/apparmor`) || !existsSync(`${root}${parser}`)) return false;
  try {
    return readFileSync(`${root}/sys/module/apparmor/parameters/enabled`, 'latin1').startsWith('Y');
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
  if (SecurityProfile_ProfileType[type] === undefined) throw invalidArgument('unknown apparmor profile type');
  const name = (profile?.localhostRef || oldName).replace(/^localhost\//, '');
  if (!enabled) {
    // Who asks for none in particular is not refused.
    const asked = profile !== undefined || oldName !== '';
    if (asked && type !== SecurityProfile_ProfileType.Unconfined) throw invalidArgument('apparmor is not supported');
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
      await loadDefault();
      return defaultAppArmorProfile;
  }
}

/** One load at a time, and none once it is there. */
let loading: Promise<void> | undefined;

function loadDefault(): Promise<void> {
  loading ??= (async () => {
    if (await isLoaded(defaultAppArmorProfile)) return;
    const input = Buffer.from(defaultProfileText(defaultAppArmorProfile));
    const said: string[] = [];
    const { code } = await runProgram({
      file: parser,
      args: ['-Kr'],
      input,
      timeoutMs: 60_000,
      limit: 4096,
      onErrorLine: (line) => said.push(line),
    });
    if (code !== 0) {
      throw unknown(
        `load apparmor profile ${defaultAppArmorProfile}: parser error(${said.join(' ')}): exit status ${code}`,
      );
    }
  })().finally(() => {
    // An administrator may take it away again.
    loading = undefined;
  });
  return loading;
}

function typeOfName(name: string): SecurityProfile_ProfileType {
  if (name === '' || name === 'runtime/default') return SecurityProfile_ProfileType.RuntimeDefault;
  if (name === 'unconfined') return SecurityProfile_ProfileType.Unconfined;
  if (!name.startsWith('localhost/')) throw invalidArgument(`invalid profile "${name}"`);
  return SecurityProfile_ProfileType.Localhost;
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
