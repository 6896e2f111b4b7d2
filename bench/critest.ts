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
podContainerStartBenchmarkTimeoutSeconds: 120
`,
  );
  await benchmark(critest, peer, [`-benchmarking-params-file=${parameters}`, `-benchmarking-output-dir=${output}`]);
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

/** The name, among times, of the whole life of a pod with one container. */
export const fromScratch = 'FromScratch';

/**
 * Runs critest's "start a container from scratch": RunPodSandbox, CreateContainer, StartContainer, StopPodSandbox, RemovePodSandbox as one. It
 * does that once to warm up and once to measure, so it is called again and again.
 */
export async function scratchBenchmark(critest: string, peer: Peer, runs: number, times: Times): Promise<void> {
  const all = times.get(fromScratch) ?? [];
  times.set(fromScratch, all);
  const parameters = path.join(peer.directory, 'critest-scratch.yaml');
  // It fails what takes longer: five seconds by default, which a busy machine may need.
  writeFileSync(parameters, 'podContainerStartBenchmarkTimeoutSeconds: 120\n');
  for (let number = 0; number < runs; number++) {
    const stdout = await benchmark(critest, peer, [
      '--ginkgo.focus=start a container from scratch',
      `-benchmarking-params-file=${parameters}`,
    ]);
    const median = /^ *create PodSandbox and container \[duration\](?: *\|[^|]*){2}\| *([0-9.]+)(ms|s) /m.exec(stdout);
    if (!median) throw new Error(`critest -benchmark told no duration:\n${stdout.slice(-4000)}`);
    all.push(Number(median[1]) * (median[2] === 's' ? 1000 : 1));
  }
}

async function benchmark(critest: string, peer: Peer, options: readonly string[]): Promise<string> {
  const endpoint = `unix://${peer.socket}`;
  const endpoints = [`--runtime-endpoint=${endpoint}`, `--image-endpoint=${endpoint}`];
  const { code, stdout } = await run(critest, ['-benchmark', ...options, ...endpoints, '--ginkgo.no-color'], {
    mayFail: true,
    timeoutMs: 300_000,
  });
  if (code !== 0) throw new Error(`critest -benchmark failed with ${peer.name}:\n${stdout.slice(-8000)}`);
  return stdout;
}
