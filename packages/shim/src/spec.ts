import { readFileSync } from 'node:fs';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';

/** What the shim itself has to know of a bundle's config.json. It is only read: the runtime gets the file as the daemon wrote it. */
export interface SpecFacts {
  terminal: boolean;
  /** Its own pid namespace: when its init process ends, the kernel ends the rest. */
  ownPidNamespace: boolean;
  /** Access to files is decided by more than their mode: SELinux, or an AppArmor profile of the user's own. */
  confined: boolean;
  /** Kinds of hooks that there are: `prestart`, `poststop`, … */
  hooks: string[];
  annotations: Record<string, string>;
}

interface SpecSubset {
  process?: { terminal?: boolean; selinuxLabel?: string; apparmorProfile?: string };
  linux?: { namespaces?: { type?: string; path?: string }[]; mountLabel?: string };
  hooks?: Record<string, unknown[] | null>;
  annotations?: Record<string, string>;
}

/** Profiles that engines generate for everyone; they allow writing to inherited FIFOs. */
const commonProfiles = new Set([
  '',
  'unconfined',
  'cri-containerd.apparmor.d',
  'docker-default',
  'nerdctl-default',
  'buildkit-default',
]);

/** Reads a bundle's config.json. @throws StatusError InvalidArgument if it is not there or not JSON */
export function readSpecFacts(bundle: string): SpecFacts {
  let spec: SpecSubset;
  try {
    spec = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')) as SpecSubset;
  } catch (error) {
    throw invalidArgument(`failed to read ${path.join(bundle, 'config.json')}: ${(error as Error).message}`, error);
  }
  const pid = spec.linux?.namespaces?.find((namespace) => namespace.type === 'pid');
  return {
    terminal: spec.process?.terminal ?? false,
    ownPidNamespace: pid !== undefined && !pid.path,
    confined:
      Boolean(spec.process?.selinuxLabel) ||
      Boolean(spec.linux?.mountLabel) ||
      !commonProfiles.has(spec.process?.apparmorProfile ?? ''),
    hooks: Object.entries(spec.hooks ?? {}).flatMap(([kind, list]) => (list?.length ? [kind] : [])),
    annotations: spec.annotations ?? {},
  };
}
