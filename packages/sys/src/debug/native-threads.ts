import { readdirSync, readFileSync } from 'node:fs';

/** A thread of this process as the kernel sees it. */
export interface NativeThread {
  tid: number;
  name: string;
  /** As ps(1) has it: R runs, S sleeps, D waits for a device or a filesystem. */
  state: string;
  /** Seconds. */
  cpu: number;
  /** The function of the kernel it waits in; empty if it runs or the kernel does not tell. */
  waits: string;
}

/** A tick of /proc's clock, which is the same on all architectures that Node runs on. */
const ticksPerSecond = 100;

/** All threads: JavaScript's, V8's helpers and those of libuv's pool. */
export function nativeThreads(): NativeThread[] {
  const threads: NativeThread[] = [];
  for (const tid of readdirSync('/proc/self/task')) {
    const read = (name: string): string => {
      try {
        return readFileSync(`/proc/self/task/${tid}/${name}`, 'utf8').trim();
      } catch {
        return '';
      }
    };
    const stat = read('stat');
    // It ended while we looked.
    if (stat === '') continue;
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const waits = read('wchan');
    threads.push({
      tid: Number(tid),
      name: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')),
      state: fields[0]!,
      cpu: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
      waits: waits === '0' ? '' : waits,
    });
  }
  return threads;
}

/** As a table for people. */
export function formatThreads(threads: readonly NativeThread[]): string {
  const rows = [
    ['TID', 'STATE', 'CPU (s)', 'NAME', 'WAITS IN'],
    ...threads.map(({ tid, state, cpu, name, waits }) => [String(tid), state, cpu.toFixed(2), name, waits || '-']),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
