import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Peer } from './peers.ts';

/**
 * Milliseconds from the start of `ctr run` to the first byte that the container writes, `times` times with each daemon in turns, in
 * ascending order. The client is the same program for both.
 */
export async function firstBytes(
  peers: readonly Peer[],
  ctr: string,
  image: string,
  runtime: string,
  times: number,
): Promise<Map<Peer, number[]>> {
  const took = new Map<Peer, number[]>(peers.map((peer) => [peer, []]));
  for (let round = 0; round < times; round++) {
    for (const peer of peers) took.get(peer)!.push(await firstByte(peer, ctr, image, runtime, `first-${round}`));
  }
  for (const all of took.values()) all.sort((a, b) => a - b);
  return took;
}

async function firstByte(peer: Peer, ctr: string, image: string, runtime: string, id: string): Promise<number> {
  const place = ['--cgroup', `${peer.account.path}/${id}`, '--runc-binary', runtime, '--runc-root', peer.runtimeRoot];
  const startedAt = performance.now();
  const child = spawn(ctr, ['-a', peer.socket, '-n', 'bench', 'run', '--rm', ...place, image, id, 'echo', 'first'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let at: number | undefined;
  let said = '';
  child.stdout.on('data', (data: Buffer) => {
    at ??= performance.now();
    said += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    said += data.toString();
  });
  const [code] = await once(child, 'close');
  if (code !== 0 || at === undefined) throw new Error(`${peer.name}: ctr run ended with ${code}: ${said}`);
  return at - startedAt;
}

/** The value below which a share of them lies. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!;
}
