// Calls a second of our own servers with our own clients in one process each. Run: node bench/rpc.ts [calls]
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Images } from '@gantry/api/gen/services/images/v1/images_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient, GrpcServer, grpcTransport, TtrpcServer, ttrpcTransport } from '@gantry/rpc';

const count = Number(process.argv[2] ?? 30_000);

if (process.send) {
  const dir = process.argv[3]!;
  const grpc = new GrpcServer();
  const ttrpc = new TtrpcServer();
  for (const server of [grpc, ttrpc]) {
    server.add(Version, { version: () => ({ version: 'v1', revision: 'r' }) });
    server.add(Images, {
      get: async ({ name }) => ({
        image: {
          name,
          labels: { a: 'b' },
          target: {
            mediaType: 'application/vnd.oci.image.index.v1+json',
            digest: `sha256:${'0'.repeat(64)}`,
            size: 1000n,
          },
        },
      }),
    });
  }
  await grpc.listenUnix(path.join(dir, 'grpc.sock'));
  await ttrpc.listenUnix(path.join(dir, 'ttrpc.sock'));
  process.send('ready');
  process.on('disconnect', () => process.exit(0));
} else {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-bench-'));
  const child = fork(import.meta.filename, [String(count), dir]);
  await new Promise((resolve) => child.once('message', resolve));
  const transports = {
    grpc: grpcTransport(path.join(dir, 'grpc.sock'), { namespace: 'default' }),
    ttrpc: ttrpcTransport(path.join(dir, 'ttrpc.sock'), { namespace: 'default' }),
  };
  for (const [name, transport] of Object.entries(transports)) {
    const version = createClient(Version, transport);
    const images = createClient(Images, transport);
    for (const [what, call] of [
      ['Version', () => version.version({})],
      ['Images.Get', () => images.get({ name: 'docker.io/library/alpine:latest' })],
    ] as const) {
      for (const parallel of [1, 32]) {
        for (let i = 0; i < 2000; i++) await call();
        const took: number[] = [];
        const started = performance.now();
        let left = count;
        const worker = async () => {
          while (left-- > 0) {
            const before = performance.now();
            await call();
            took.push(performance.now() - before);
          }
        };
        await Promise.all(Array.from({ length: parallel }, worker));
        const rate = Math.round((count / (performance.now() - started)) * 1000);
        const median = took.sort((a, b) => a - b)[count >> 1]!;
        console.log(`${name} ${what}, ${parallel} at a time: ${rate} calls/s, median ${median.toFixed(3)} ms`);
      }
    }
    await transport.close();
  }
  child.disconnect();
  rmSync(dir, { recursive: true });
}
