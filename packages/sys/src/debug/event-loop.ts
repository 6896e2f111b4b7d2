import { monitorEventLoopDelay } from 'node:perf_hooks';
import { waited } from './cpu-profile.ts';

/** How late the main thread's event loop came to what was due. Milliseconds. */
export interface EventLoopDelay {
  /** For how long it was watched. */
  seconds: number;
  delay: { mean: number; p50: number; p90: number; p99: number; 'p99.9': number; max: number };
  /** Share of the time that the loop was busy, 0 to 1: while it was watched, and since the process began. */
  utilization: number;
  utilizationSinceStart: number;
}

const resolutionMs = 10;

/** Watches the event loop for some time; not before, because watching wakes the process a hundred times a second. */
export async function eventLoopDelay(seconds: number, signal: AbortSignal): Promise<EventLoopDelay> {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  const before = performance.eventLoopUtilization();
  const began = performance.now();
  histogram.enable();
  await waited(seconds, signal);
  histogram.disable();
  // What is recorded is the time from tick to tick: what goes beyond the distance of ticks is delay.
  const late = (nanoseconds: number): number =>
    Number.isFinite(nanoseconds) ? Math.max(0, Math.round((nanoseconds / 1e6 - resolutionMs) * 1000) / 1000) : 0;
  const percentile = (percent: number): number => late(histogram.percentile(percent));
  return {
    seconds: (performance.now() - began) / 1000,
    delay: {
      mean: late(histogram.mean),
      p50: percentile(50),
      p90: percentile(90),
      p99: percentile(99),
      'p99.9': percentile(99.9),
      max: histogram.count > 0 ? late(histogram.max) : 0,
    },
    utilization: performance.eventLoopUtilization(before).utilization,
    utilizationSinceStart: performance.eventLoopUtilization().utilization,
  };
}
