import type { Flag } from '../command.ts';
import { runtimeFlags } from '../runtime-options.ts';

export const snapshotterFlags: readonly Flag[] = [
  {
    name: 'snapshotter',
    kind: 'string',
    usage: "the snapshotter; the namespace's default if there is none",
    env: ['CONTAINERD_SNAPSHOTTER'],
  },
];

/** Flags of `run` and `containers create`: what the container is. */
export const containerFlags: readonly Flag[] = [
  ...runtimeFlags,
  ...snapshotterFlags,
  { name: 'snapshotter-label', kind: 'strings', usage: "labels of the container's snapshot: key=value" },
  { name: 'config', aliases: ['c'], kind: 'string', usage: 'file with the whole runtime spec' },
  { name: 'cwd', kind: 'string', usage: 'working directory of the process' },
  { name: 'env', kind: 'strings', usage: 'a variable: FOO=bar' },
  { name: 'env-file', kind: 'string', usage: 'file with a variable in each line' },
  { name: 'label', kind: 'strings', usage: 'a label: key=value' },
  { name: 'annotation', kind: 'strings', usage: 'an annotation of the spec: key=value' },
  { name: 'mount', kind: 'strings', usage: 'a mount: type=bind,src=/tmp,dst=/host,options=rbind:ro' },
  { name: 'net-host', kind: 'bool', usage: "use the host's network" },
  { name: 'privileged', kind: 'bool', usage: 'take away all that protects the host' },
  { name: 'read-only', kind: 'bool', usage: 'make the root filesystem read-only' },
  { name: 'sandbox', kind: 'string', usage: 'id of the sandbox the container belongs to' },
  { name: 'tty', aliases: ['t'], kind: 'bool', usage: 'give the container a terminal' },
  { name: 'with-ns', kind: 'strings', usage: 'a namespace to join: <type>:<path>' },
  { name: 'pid-file', kind: 'string', usage: "file to write the task's pid to" },
  { name: 'gpus', kind: 'strings', usage: 'GPUs to give to the container' },
  { name: 'allow-new-privs', kind: 'bool', usage: 'let the process gain privileges (setuid programs)' },
  { name: 'memory-limit', kind: 'int', usage: 'most memory, in bytes', default: 0 },
  { name: 'cap-add', kind: 'strings', usage: 'a capability to give: CAP_SYS_PTRACE' },
  { name: 'cap-drop', kind: 'strings', usage: 'a capability to take: CAP_NET_RAW' },
  { name: 'seccomp', kind: 'bool', usage: 'use the default seccomp profile' },
  { name: 'seccomp-profile', kind: 'string', usage: 'file with a seccomp profile' },
  {
    name: 'apparmor-default-profile',
    kind: 'string',
    usage: 'name under which the default AppArmor profile is loaded',
  },
  { name: 'apparmor-profile', kind: 'string', usage: 'name of a loaded AppArmor profile' },
  { name: 'blockio-config-file', kind: 'string', usage: 'file with block I/O classes' },
  { name: 'blockio-class', kind: 'string', usage: 'block I/O class of the container' },
  { name: 'rdt-class', kind: 'string', usage: 'Intel RDT class of the container' },
  { name: 'hostname', kind: 'string', usage: 'host name' },
  { name: 'user', aliases: ['u'], kind: 'string', usage: 'user of the process: name or uid, and maybe :group' },
  { name: 'rootfs', kind: 'bool', usage: 'the image is a directory with the root filesystem' },
  { name: 'no-pivot', kind: 'bool', usage: 'do not use pivot_root' },
  { name: 'cpu-quota', kind: 'int', usage: 'microseconds of CPU per period; -1 for no limit', default: -1 },
  { name: 'cpu-period', kind: 'int', usage: 'length of a period, in microseconds', default: 0 },
  { name: 'rootfs-propagation', kind: 'string', usage: 'propagation of the root mount: rprivate, rslave, …' },
  { name: 'device', kind: 'strings', usage: 'a device: /dev/x[:/dev/y[:rwm]], or a CDI name' },
];

/** Flags of `run` alone, beside those. */
export const runFlags: readonly Flag[] = [
  { name: 'rm', kind: 'bool', usage: 'remove the container when it has ended' },
  { name: 'null-io', kind: 'bool', usage: 'send its output nowhere' },
  { name: 'log-uri', kind: 'string', usage: 'send its output to a file or program: file:///var/log/x' },
  { name: 'detach', aliases: ['d'], kind: 'bool', usage: 'do not wait for it' },
  { name: 'fifo-dir', kind: 'string', usage: 'directory for the pipes of its input and output' },
  { name: 'cgroup', kind: 'string', usage: 'its cgroup; "" for none' },
  { name: 'platform', kind: 'string', usage: 'run the image for this platform' },
  { name: 'cni', kind: 'bool', usage: 'connect it by CNI' },
  { name: 'sync-fs', kind: 'bool', usage: 'sync what was unpacked before going on' },
  { name: 'dump-config', kind: 'string', usage: 'write the spec to this file; - prints it and runs nothing' },
  { name: 'uidmap', kind: 'strings', usage: 'user ids: container-uid:host-uid:length' },
  { name: 'gidmap', kind: 'strings', usage: 'group ids: container-gid:host-gid:length' },
  { name: 'remap-labels', kind: 'bool', usage: 'let the snapshotter do the mapping, by labels' },
  { name: 'privileged-without-host-devices', kind: 'bool', usage: "with --privileged: without the host's devices" },
  { name: 'cpus', kind: 'float', usage: 'CPUs it may use, as 1.5', default: 0 },
  { name: 'cpu-shares', kind: 'int', usage: 'its weight beside others', default: 1024 },
  { name: 'cpuset-cpus', kind: 'string', usage: 'CPUs it may run on: 0-3,7' },
  { name: 'cpuset-mems', kind: 'string', usage: 'memory nodes it may use' },
  { name: 'rlimit-nofile', kind: 'string', usage: 'open files: soft:hard' },
];
