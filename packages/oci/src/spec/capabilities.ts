/** Linux capabilities in the order of their numbers, as this kernel interface knows them (capability.h). */
const byNumber = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE ' +
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN ' +
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE ' +
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
)
  .split(' ')
  .map((name) => `CAP_${name}`);

/** What an ordinary container gets. */
export const defaultCapabilities: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/** Every capability there is a name for. */
export function knownCapabilities(): readonly string[] {
  return byNumber;
}

/** The names of a capability mask as in `/proc/<pid>/status` (`CapEff: 00000…`). */
export function capabilitiesOfMask(mask: bigint): string[] {
  return byNumber.filter((_, number) => (mask >> BigInt(number)) & 1n);
}

/** The effective capabilities in the text of a `/proc/<pid>/status`. */
export function effectiveCapabilities(status: string): string[] {
  const match = /^CapEff:\s*([0-9a-f]+)$/im.exec(status);
  return match ? capabilitiesOfMask(BigInt(`0x${match[1]}`)) : [];
}
