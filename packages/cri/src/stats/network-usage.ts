import { readFile } from 'node:fs/promises';
import { hasErrno } from '@gantry/sys';

/** What went through a network interface. */
export interface InterfaceUsage {
  name: string;
  rx: { bytes: bigint; packets: bigint; errors: bigint; dropped: bigint };
  tx: { bytes: bigint; packets: bigint; errors: bigint; dropped: bigint };
}

/** The interfaces of the network namespace that a process is in, without loopback; none if it is gone. */
export async function networkUsage(pid: number): Promise<InterfaceUsage[]> {
  try {
    return parseNetDev(await readFile(`/proc/${pid}/net/dev`, 'latin1'));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EINVAL', 'ESRCH')) return [];
    throw error;
  }
}

/** Reads the text of /proc/net/dev (proc(5)). */
export function parseNetDev(text: string): InterfaceUsage[] {
  return text
    .split('\n')
    .map((line) => /^\s*([^\s:]+):\s*(.*)$/.exec(line))
    .filter((match) => match !== null && match[1] !== 'lo')
    .map((match) => {
      const [rxBytes, rxPackets, rxErrors, rxDropped, , , , , txBytes, txPackets, txErrors, txDropped] = match![2]!
        .trim()
        .split(/\s+/)
        .map(BigInt);
      return {
        name: match![1]!,
        rx: { bytes: rxBytes ?? 0n, packets: rxPackets ?? 0n, errors: rxErrors ?? 0n, dropped: rxDropped ?? 0n },
        tx: { bytes: txBytes ?? 0n, packets: txPackets ?? 0n, errors: txErrors ?? 0n, dropped: txDropped ?? 0n },
      };
    });
}
