// Which runtime runs a container, and how.
import { type Any, genericRuntimeOptions, runcOptions } from '@gantry/client';
import type { Flag, Invocation } from './command.ts';

export const runtimeFlags: readonly Flag[] = [
  {
    name: 'runtime',
    kind: 'string',
    usage: 'name of the runtime, or path of its shim',
    default: 'io.containerd.runc.v2',
  },
  { name: 'runtime-config-path', kind: 'string', usage: "path of the runtime's own configuration" },
  { name: 'runc-binary', kind: 'string', usage: 'the OCI runtime to run, as crun' },
  { name: 'runc-root', kind: 'string', usage: "directory of the OCI runtime's state" },
  { name: 'runc-systemd-cgroup', kind: 'bool', usage: 'let systemd make the cgroups' },
];

/** The options that the flags of a command give the runtime; undefined for runtimes that take none of them. */
export function runtimeOptions(invocation: Invocation): Any | undefined {
  const configPath = invocation.string('runtime-config-path');
  if (configPath) return genericRuntimeOptions({ configPath });
  const binaryName = invocation.string('runc-binary');
  const root = invocation.string('runc-root');
  const systemdCgroup = invocation.bool('runc-systemd-cgroup');
  const name = invocation.string('runtime');
  const given = binaryName !== '' || root !== '' || systemdCgroup;
  if (name !== 'io.containerd.runc.v2' && !given) return undefined;
  return runcOptions({ binaryName, root, systemdCgroup });
}
