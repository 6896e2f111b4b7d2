import { lanes, processAny } from './containers.ts';
import type { Peer } from './peers.ts';

/** Runs one process in a container, to its end and away. */
export async function execOnce(peer: Peer, containerId: string, execId: string): Promise<void> {
  await peer.tasks.exec({ containerId, execId, spec: processAny(['true']) });
  const exited = peer.tasks.wait({ containerId, execId });
  await peer.tasks.start({ containerId, execId });
  const { exitStatus } = await exited;
  if (exitStatus !== 0) throw new Error(`${peer.name}: exec ${execId} ended with ${exitStatus}`);
  await peer.tasks.deleteProcess({ containerId, execId });
}

/** A line through the shim's memory while it runs one process after the other. */
export interface MemorySlope {
  execs: number;
  /** Bytes for each exec, by least squares over the second half of the run: what a process grows to first is not growth. */
  slope: number;
  /** Bytes at the middle and at the end. */
  middle: number;
  end: number;
}

/** Runs so many processes, four at a time, and looks at the shim's memory fifty times. @param size the memory now, bytes */
export async function execSlope(
  peer: Peer,
  containerId: string,
  execs: number,
  size: () => number,
): Promise<MemorySlope> {
  const points: [number, number][] = [];
  const step = Math.max(1, Math.floor(execs / 50));
  let begun = 0;
  let done = 0;
  await lanes(4, async () => {
    while (begun < execs) {
      await execOnce(peer, containerId, `n${begun++}`);
      if (++done % step !== 0) continue;
      points.push([done, size()]);
      if (points.length % 10 === 0) console.error(`  ${done} execs: shim ${(points.at(-1)![1] / 1e6).toFixed(1)} MB`);
    }
  });
  const half = points.slice(points.length >> 1);
  return { execs, slope: slopeOf(half), middle: half[0]![1], end: half.at(-1)![1] };
}

function slopeOf(points: readonly [number, number][]): number {
  const mean = (index: 0 | 1) => points.reduce((sum, point) => sum + point[index], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  let above = 0;
  let below = 0;
  for (const point of points) {
    above += (point[0] - x) * (point[1] - y);
    below += (point[0] - x) ** 2;
  }
  return below === 0 ? 0 : above / below;
}
