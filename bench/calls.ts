import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { WriteAction } from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { Peer } from './peers.ts';

const exec = promisify(execFile);

/** gRPC calls (Version) per second over `seconds`, `parallel` at a time on one connection. */
export async function callsPerSecond(peer: Peer, parallel: number, seconds: number): Promise<number> {
  const client = peer.version;
  let done = 0;
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      while (performance.now() < until) {
        await client.version({});
        done++;
      }
    }),
  );
  return (done * 1000) / (performance.now() - startedAt);
}

/** Writes a blob through the content service, then reads it; MB/s of each. */
export async function contentThroughput(peer: Peer, megabytes: number): Promise<{ write: number; read: number }> {
  const chunk = randomBytes(1 << 20);
  const hash = createHash('sha256');
  for (let index = 0; index < megabytes; index++) hash.update(chunk);
  const digest = `sha256:${hash.digest('hex')}`;
  const total = BigInt(megabytes) << 20n;
  const { content } = peer;
  const startedAt = performance.now();
  let offset = 0n;
  const requests = async function* () {
    for (let index = 0; index < megabytes; index++) {
      yield { action: WriteAction.WRITE, ref: `bench-${digest}`, total, expected: digest, offset, data: chunk };
      offset += BigInt(chunk.length);
    }
    yield { action: WriteAction.COMMIT, ref: `bench-${digest}`, total, expected: digest, offset: total };
  };
  for await (const answer of content.write(requests())) if (answer.action === WriteAction.COMMIT) break;
  const written = performance.now();
  let received = 0;
  for await (const { data } of content.read({ digest })) received += data.length;
  if (BigInt(received) !== total) throw new Error(`${peer.name} gave ${received} bytes of ${total}`);
  const read = performance.now();
  await content.delete({ digest });
  return { write: (megabytes * 1000) / (written - startedAt), read: (megabytes * 1000) / (read - written) };
}

/** Milliseconds of the client's `version` command, the median of `times`. */
export async function versionCommand(peer: Peer, times: number): Promise<number> {
  const took: number[] = [];
  for (let index = 0; index < times; index++) {
    const startedAt = performance.now();
    await exec(peer.ctr, ['-a', peer.socket, 'version']);
    took.push(performance.now() - startedAt);
  }
  return took.sort((a, b) => a - b)[times >> 1]!;
}
