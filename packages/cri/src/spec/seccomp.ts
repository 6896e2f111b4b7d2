import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { type SecurityProfile, SecurityProfile_ProfileType } from '@gantry/api/gen/cri/v1/api_pb.js';
import { defaultSeccomp, parseJson, type SpecSeccomp } from '@gantry/oci';

export interface SeccompRequest {
  profile: SecurityProfile | undefined;
  /** The field that profiles were named in before; used if there is no profile. */
  oldPath: string;
  /** `unset_seccomp_profile`: what is meant where nothing is said. */
  unset: string;
  privileged: boolean;
  /** What the default profile is made for. */
  capabilities: readonly string[];
}

/** The system call filter of a process; undefined for none. @throws InvalidArgument for a profile that cannot be read */
export async function seccompProfile(request: SeccompRequest): Promise<SpecSeccomp | undefined> {
  // What everything is allowed to is not filtered, unless it is asked for by name nowadays.
  if (request.privileged) return undefined;
  const { profile } = request;
  if (!profile) return byName(request.oldPath || request.unset, request.capabilities);
  switch (profile.profileType) {
    case SecurityProfile_ProfileType.Unconfined:
      return undefined;
    case SecurityProfile_ProfileType.Localhost:
      return readProfile(profile.localhostRef.replace(/^localhost\//, ''));
    default:
      return defaultSeccomp(request.capabilities);
  }
}

async function byName(name: string, capabilities: readonly string[]): Promise<SpecSeccomp | undefined> {
  if (name === '' || name === 'unconfined') return undefined;
  if (name === 'runtime/default' || name === 'docker/default') return defaultSeccomp(capabilities);
  if (!name.startsWith('localhost/')) throw invalidArgument(`invalid seccomp profile "${name}"`);
  return readProfile(name.slice('localhost/'.length));
}

async function readProfile(file: string): Promise<SpecSeccomp> {
  if (!path.isAbsolute(file)) throw invalidArgument(`seccomp profile "${file}" is not an absolute path`);
  try {
    return parseJson<SpecSeccomp>(await readFile(file));
  } catch (error) {
    throw invalidArgument(`cannot load seccomp profile "${file}": ${(error as Error).message}`, error);
  }
}
