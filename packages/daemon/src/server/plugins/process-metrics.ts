// What Prometheus clients of every language tell of their process, and of Node's event loop and heap.
import { readdirSync, readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Gauge, type MetricsRegistry } from '../../core/metrics/metrics-registry.ts';
import { version } from '../../core/version/version.ts';

/** A soft limit of this process; Infinity for none. */
function softLimit(name: string): number {
  const line = readFileSync('/proc/self/limits', 'utf8')
    .split('\n')
    .find((one) => one.startsWith(name));
  const value = line?.slice(name.length).trim().split(/\s+/)[0];
  return value === undefined || value === 'unlimited' ? Infinity : Number(value);
}

/** Bytes of virtual memory, from the kernel's page count. */
function virtualBytes(): number {
  return Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096;
}

/** What a process without a limit of its own has, as others print it: the largest 64-bit number. */
const noLimit = 2 ** 64;

/** Bytes that came in and went out by IP in this network namespace. */
function networkBytes(name: 'InOctets' | 'OutOctets'): number {
  const lines = readFileSync('/proc/self/net/netstat', 'utf8').split('\n');
  const at = lines.findIndex((line) => line.startsWith('IpExt:'));
  const names = lines[at]?.split(' ') ?? [];
  return Number(lines[at + 1]?.split(' ')[names.indexOf(name)] ?? 0);
}

export function registerProcessMetrics(registry: MetricsRegistry): void {
  const startedAt = Date.now() / 1000 - process.uptime();
  // By iteration: no timer that wakes a resting daemon, and no stall falls between two ticks.
  const delay = monitorEventLoopDelay({ samplePerIteration: true });
  const gauges: [name: string, help: string, read: () => number, type?: 'counter'][] = [
    [
      'process_cpu_seconds_total',
      'User and system CPU time.',
      () => {
        const use = process.cpuUsage();
        return (use.user + use.system) / 1e6;
      },
      'counter',
    ],
    ['process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss()],
    ['process_virtual_memory_bytes', 'Virtual memory.', virtualBytes],
    [
      'process_virtual_memory_max_bytes',
      'The limit on virtual memory.',
      () => Math.min(softLimit('Max address space'), noLimit),
    ],
    [
      'process_network_receive_bytes_total',
      'Bytes received over the network, by all of its namespace.',
      () => networkBytes('InOctets'),
      'counter',
    ],
    [
      'process_network_transmit_bytes_total',
      'Bytes sent over the network, by all of its namespace.',
      () => networkBytes('OutOctets'),
      'counter',
    ],
    ['process_open_fds', 'Open file descriptors.', () => readdirSync('/proc/self/fd').length],
    ['process_max_fds', 'The limit on open file descriptors.', () => softLimit('Max open files')],
    ['process_start_time_seconds', 'When the process started, in seconds since 1970.', () => startedAt],
    ['nodejs_heap_used_bytes', 'JavaScript heap in use.', () => process.memoryUsage().heapUsed],
    ['nodejs_heap_total_bytes', 'JavaScript heap set aside.', () => process.memoryUsage().heapTotal],
    ['nodejs_external_memory_bytes', 'Memory of buffers outside of the heap.', () => process.memoryUsage().external],
    [
      'nodejs_eventloop_lag_max_seconds',
      'The longest that the event loop was held up since the last look.',
      () => {
        delay.enable();
        const max = delay.max / 1e9;
        delay.reset();
        return max;
      },
    ],
  ];
  for (const [name, help, read, type] of gauges) registry.register(new Gauge(name, help, read, type ?? 'gauge'));
  registry.register(
    new Gauge(
      'containerd_build_info_total',
      'Version of this daemon.',
      () => [{ labels: version, value: 1 }],
      'counter',
    ),
  );
}
