/** What a container may do to /proc and /sys under the default profile: everything but this. */
const denied = [
  '@{PROC}/* w',
  '@{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w',
  '@{PROC}/sys/[^k]** w',
  '@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w',
  '@{PROC}/sysrq-trigger rwklx',
  '@{PROC}/mem rwklx',
  '@{PROC}/kmem rwklx',
  '@{PROC}/kcore rwklx',
  'mount',
  '/sys/[^f]*/** wklx',
  '/sys/f[^s]*/** wklx',
  '/sys/fs/[^c]*/** wklx',
  '/sys/fs/c[^g]*/** wklx',
  '/sys/fs/cg[^r]*/** wklx',
  '/sys/firmware/** rwklx',
  '/sys/devices/virtual/powercap/** rwklx',
  '/sys/kernel/security/** rwklx',
];

/**
 * The AppArmor profile that container engines give to containers by default, as apparmor_parser reads it. It is one for all: processes
 * under it may signal and trace each other, and be signalled by what is not confined and by the OCI runtime.
 * @throws Error for a name that would not stay one in the text
 */
export function defaultAppArmorProfile(name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) throw new Error(`invalid AppArmor profile name "${name}"`);
  const allowed = [
    'network',
    'capability',
    'file',
    'umount',
    'signal (receive) peer=unconfined',
    'signal (receive) peer=runc',
    'signal (receive) peer=crun',
    `signal (send,receive) peer=${name}`,
    `ptrace (trace,read,tracedby,readby) peer=${name}`,
  ];
  const rules = [...allowed, ...denied.map((rule) => `deny ${rule}`)];
  return `#include <tunables/global>

profile ${name} flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>

${rules.map((rule) => `  ${rule},`).join('\n')}
}
`;
}
