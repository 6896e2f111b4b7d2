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
  const { profileType, localhostRef } = profile;
  if (profileType !== SecurityProfile_ProfileType.Localhost && localhostRef !== '') {
    throw invalidArgument('seccomp config invalid LocalhostRef must only be set if ProfileType is Localhost');
  }
  switch (profileType) {
    case SecurityProfile_ProfileType.Unconfined:
      return undefined;
    case SecurityProfile_ProfileType.Localhost:
      return readProfile(localhostRef.replace(/^localhost\//, ''));
    case SecurityProfile_ProfileType.RuntimeDefault:
      return defaultSeccomp(request.capabilities);
    default:
      throw invalidArgument('seccomp unknown ProfileType');
  }
}

/** Whether it has the form of the OCI specification; the runtime would refuse it only when the container starts. */
function checkProfile(profile: unknown): asserts profile is SpecSeccomp {
  const fail = (what: string): never => {
    throw new Error(what);
  };
  const texts = (value: unknown, what: string): void => {
    if (value === undefined || value === null) return;
    if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) fail(`${what} is no list of texts`);
  };
  if (typeof profile !== 'object' || profile === null || Array.isArray(profile)) fail('it is no object');
  const { defaultAction, architectures, flags, syscalls } = profile as Record<string, unknown>;
  if (typeof defaultAction !== 'string') fail('defaultAction is no text');
  texts(architectures, 'architectures');
  texts(flags, 'flags');
  if (syscalls === undefined || syscalls === null) return;
  if (!Array.isArray(syscalls)) fail('syscalls is no list');
  for (const { names, action, args } of syscalls as Record<string, unknown>[]) {
    texts(names, 'syscalls.names');
    if (typeof action !== 'string') fail('syscalls.action is no text');
    for (const { index, value, valueTwo, op } of (args ?? []) as Record<string, unknown>[]) {
      for (const number of [index, value, valueTwo]) {
        if (number !== undefined && !isUnsigned(number)) fail(`syscalls.args: ${number} is no 64-bit number`);
      }
      if (typeof op !== 'string') fail('syscalls.args.op is no text');
    }
  }
}

function isUnsigned(value: unknown): boolean {
  if (typeof value !== 'number' && typeof value !== 'bigint') return false;
  if (typeof value === 'number' && !Number.isInteger(value)) return false;
  return BigInt(value) >= 0n && BigInt(value) < 1n << 64n;
}

async function byName(name: string, capabilities: readonly string[]): Promise<SpecSeccomp | undefined> {
  if (name === '' || name === 'unconfined') return undefined;
  if (name === 'runtime/default' || name === 'docker/default') return defaultSeccomp(capabilities);
  if (!name.startsWith('localhost/')) throw invalidArgument(`invalid profile "${name}"`);
  return readProfile(name.slice('localhost/'.length));
}

async function readProfile(file: string): Promise<SpecSeccomp> {
  if (!path.isAbsolute(file)) throw invalidArgument(`seccomp profile "${file}" is not an absolute path`);
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw invalidArgument(`cannot load seccomp profile "${file}": ${(error as Error).message}`, error);
  }
  try {
    const profile = parseJson<unknown>(bytes);
    checkProfile(profile);
    return profile;
  } catch (error) {
    throw invalidArgument(`decoding seccomp profile failed "${file}": ${(error as Error).message}`, error);
  }
}
