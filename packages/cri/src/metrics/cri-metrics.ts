import { Counter, Gauge, Histogram, MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import type { LogCounts } from '../logs/log-counts.ts';

const prefix = 'containerd_cri_';

/** What took how long, by containerd's names; those in the second list by runtime. */
const timers = {
  sandbox_list: 'Time to list sandboxes.',
  sandbox_create_network: 'Time to create the network of a sandbox.',
  sandbox_delete_network: 'Time to delete the network of a sandbox.',
  container_list: 'Time to list containers.',
} as const;
const runtimeTimers = {
  sandbox_runtime_create: 'Time to create a sandbox in the runtime.',
  sandbox_runtime_stop: 'Time to stop a sandbox.',
  sandbox_remove: 'Time to remove a sandbox.',
  container_create: 'Time to create a container.',
  container_start: 'Time to start a container.',
  container_stop: 'Time to stop a container.',
  container_remove: 'Time to remove a container.',
  container_checkpoint: 'Time to checkpoint a container.',
} as const;

const logCounters: Record<string, { field: keyof LogCounts; help: string }> = {
  input_entries: { field: 'inputEntries', help: 'Lines that containers wrote to their logs.' },
  input_bytes: { field: 'inputBytes', help: 'Bytes that containers wrote to their logs.' },
  output_entries: { field: 'outputEntries', help: 'Entries that are in logs.' },
  output_bytes: { field: 'outputBytes', help: 'Bytes that are in logs.' },
  split_entries: { field: 'splitEntries', help: 'Entries more than there were lines, as long ones are told in parts.' },
};

export type TimerName = keyof typeof timers;
export type RuntimeTimerName = keyof typeof runtimeTimers;
export type NetworkOperation = 'set_up_pod' | 'tear_down_pod' | 'get_pod_network_status';

/** Numbers about CRI for Prometheus, under containerd's names, odd ones too. Times are of what succeeded. */
export class CriMetrics {
  readonly #histograms = new Map<string, Histogram>();
  readonly #operations: Counter;
  readonly #failures: Counter;
  readonly #latency: Histogram;
  readonly #pulls: Counter;
  readonly #throughput: Histogram;
  #pulling = 0;

  /** @param dropped how many events no subscriber got @param logs what went to logs so far */
  constructor(dropped: () => number, logs: () => LogCounts, registry = new MetricsRegistry()) {
    for (const [name, { field, help }] of Object.entries(logCounters)) {
      registry.register(new Gauge(`${prefix}${name}_total`, help, () => Number(logs()[field]), 'counter'));
    }
    for (const [name, help] of Object.entries({ ...timers, ...runtimeTimers }))
      this.#histograms.set(name, registry.register(new Histogram(`${prefix}${name}_seconds`, help)));
    for (const name of Object.keys(timers)) this.#histograms.get(name)?.declare({});
    const network = `${prefix}network_plugin_operations`;
    this.#operations = registry.register(new Counter(`${network}_total_total`, 'Calls of the network, by operation.'));
    this.#failures = registry.register(
      new Counter(`${network}_errors_total_total`, 'Calls of the network that failed, by operation.'),
    );
    this.#latency = registry.register(
      new Histogram(`${network}_duration_seconds_seconds`, 'How long calls of the network took, by operation.'),
    );
    const images = `${prefix}sandboxed_image`;
    this.#pulls = registry.register(new Counter(`${images}_pulls_total`, 'Pulls, by how they ended.'));
    this.#throughput = registry
      .register(new Histogram(`${images}_pulling_throughput`, 'Speed of pulls, MiB/s.'))
      .declare({});
    registry.register(
      new Gauge(`${prefix}sandboxed_in_progress_image_pulls_total`, 'Pulls under way.', () => this.#pulling),
    );
    registry.register(
      new Gauge(
        `${prefix}container_events_dropped_total`,
        'Events that a subscriber was too slow for.',
        dropped,
        'counter',
      ),
    );
  }

  time<T>(name: TimerName, work: () => Promise<T>): Promise<T> {
    return this.#timed(name, {}, work);
  }

  /** @param runtime asked before the work: afterwards what it is about may be gone */
  async timeOf<T>(name: RuntimeTimerName, runtime: string, work: () => Promise<T>): Promise<T> {
    return await this.#timed(name, { runtime }, work);
  }

  async #timed<T>(name: string, labels: Record<string, string>, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await work();
    this.#histograms.get(name)?.observe(labels, (performance.now() - start) / 1000);
    return result;
  }

  async network<T>(operation: NetworkOperation, work: () => Promise<T>): Promise<T> {
    const labels = { operation_type: operation };
    this.#operations.add(labels);
    const start = performance.now();
    try {
      return await work();
    } catch (error) {
      this.#failures.add(labels);
      throw error;
    } finally {
      this.#latency.observe(labels, (performance.now() - start) / 1000);
    }
  }

  async pull<T extends { size: number }>(work: () => Promise<T>): Promise<T> {
    this.#pulling += 1;
    const start = performance.now();
    try {
      const image = await work();
      this.#pulls.add({ status: 'success' });
      this.#throughput.observe({}, image.size / 2 ** 20 / ((performance.now() - start) / 1000));
      return image;
    } catch (error) {
      this.#pulls.add({ status: 'failure' });
      throw error;
    } finally {
      this.#pulling -= 1;
    }
  }
}
