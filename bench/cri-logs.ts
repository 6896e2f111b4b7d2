import { randomUUID } from 'node:crypto';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { eventually } from '../test/lib/processes.ts';
import { containerImage } from './cri-lab.ts';
import { removePod } from './cri-pods.ts';
import { processorSeconds } from './output.ts';
import type { Peer } from './peers.ts';

/** What it took to write a container's log. */
export interface LogRate {
  /** Bytes of output a second, from the start of the container until it has ended and all is in the log. */
  perSecond: number;
  /** Milliseconds of processor time of daemon and shims for a megabyte. */
  cpuMs: number;
}

const line = `${'an ordinary line of an ordinary log, about as long as such lines are: a request, its time, its answer'.padEnd(105, '.')}\n`;
const blockBytes = 16 << 20;

/** A container that writes as fast as it can. The log is in memory. */
export async function logRate(peer: Peer, megabytes: number): Promise<LogRate> {
  const directory = path.join(peer.state, 'bench-logs');
  mkdirSync(directory);
  try {
    const block = line.repeat(Math.floor(blockBytes / line.length));
    writeFileSync(path.join(directory, 'block'), block);
    const rounds = Math.max(1, Math.round((megabytes * 1e6) / block.length));
    const config = {
      metadata: { name: 'logs', namespace: 'bench', uid: randomUUID(), attempt: 0 },
      logDirectory: directory,
      linux: { cgroupParent: peer.account.path },
    };
    const { pods } = peer;
    const { podSandboxId: pod } = await pods.runPodSandbox({ config });
    const { containerId: container } = await pods.createContainer({
      podSandboxId: pod,
      sandboxConfig: config,
      config: {
        metadata: { name: 'main', attempt: 0 },
        image: { image: containerImage },
        command: ['sh', '-c', `i=0; while [ $i -lt ${rounds} ]; do cat /bench/block; i=$((i + 1)); done`],
        mounts: [{ hostPath: directory, containerPath: '/bench', readonly: true }],
        logPath: 'main.log',
        linux: {},
      },
    });
    const programs = [peer.pid!, ...peer.shims(pod)];
    const before = processorSeconds(programs);
    const startedAt = performance.now();
    await pods.startContainer({ containerId: container });
    await eventually(
      'the writer has ended',
      async () => {
        const { status } = await pods.containerStatus({ containerId: container });
        return status?.state === ContainerState.CONTAINER_EXITED ? status : undefined;
      },
      300_000,
    );
    const seconds = (performance.now() - startedAt) / 1000;
    const used = processorSeconds(programs) - before;
    const bytes = rounds * block.length;
    const lines = bytes / line.length;
    const written = statSync(path.join(directory, 'main.log')).size;
    if (written < bytes + lines * 30) throw new Error(`${peer.name}: the log has ${written} bytes of ${bytes}`);
    await removePod(peer, pod);
    return { perSecond: bytes / seconds, cpuMs: (used * 1000) / (bytes / 1e6) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
