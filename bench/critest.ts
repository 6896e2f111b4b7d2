import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from '../test/lib/processes.ts';
import { pulledImage } from './cri-lab.ts';
import type { Peer } from './peers.ts';

/** Milliseconds of each operation, by critest's own names of them. */
export type Times = Map<string, number[]>;

interface Results {
  operationsNames: string[];
  datapoints: { operationsDurationsNs: number[] }[] | null;
}

/**
 * Runs `critest -benchmark`: its life of a pod, of a container in a pod of its own, and of an image, one at a time, and its list of images.
 * Adds what it measured to `times`.
 */
export async function critestBenchmark(critest: string, peer: Peer, samples: number, times: Times): Promise<void> {
  const output = path.join(peer.directory, 'critest');
  mkdirSync(output, { recursive: true });
  const parameters = path.join(peer.directory, 'critest.yaml');
  writeFileSync(
    parameters,
    `podsNumber: ${samples}
podsNumberParallel: 1
containersNumber: ${samples}
containersNumberParallel: 1
imagesNumber: ${samples}
imagesNumberParallel: 1
imagePullingBenchmarkImage: ${pulledImage}
imageListingBenchmarkImages: [${pulledImage}]
`,
  );
  const endpoint = `unix://${peer.socket}`;
  const { code, stdout } = await run(
    critest,
    [
      '-benchmark',
      `-benchmarking-params-file=${parameters}`,
      `-benchmarking-output-dir=${output}`,
      `--runtime-endpoint=${endpoint}`,
      `--image-endpoint=${endpoint}`,
      '--ginkgo.no-color',
    ],
    { mayFail: true, timeoutMs: 300_000 },
  );
  if (code !== 0) throw new Error(`critest -benchmark failed with ${peer.name}:\n${stdout.slice(-8000)}`);
  for (const file of ['pod', 'container', 'image_lifecycle', 'image_listing']) {
    const results = JSON.parse(readFileSync(path.join(output, `${file}_benchmark_data.json`), 'utf8')) as Results;
    for (const { operationsDurationsNs } of results.datapoints ?? []) {
      for (const [index, name] of results.operationsNames.entries()) {
        const all = times.get(name) ?? [];
        all.push(operationsDurationsNs[index]! / 1e6);
        times.set(name, all);
      }
    }
  }
  rmSync(output, { recursive: true });
}
