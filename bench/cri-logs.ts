import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { eventually, run } from '../test/lib/processes.ts';
import { lanes } from './containers.ts';
import { containerImage } from './cri-lab.ts';
import { removePod } from './cri-pods.ts';
import { processorSeconds } from './output.ts';
import type { Peer } from './peers.ts';
import { QuietLog } from './quiet-log.ts';

/** What it took to write containers' logs. */
export interface LogRate {
  /** Bytes of output a second, from the start of the containers until all have ended and all is in the logs. */
  perSecond: number;
  /** The same until the logs' file system is synced. */
  syncedPerSecond: number;
  /** Milliseconds of processor time of daemon and shims for a megabyte. */
  cpuMs: number;
  /** Milliseconds after which another container's lines could be read in its log, sorted; none if nobody asked. */
  delays: number[];
}

export interface LogLoad {
  /** Made, and removed. Logs and what is written to them are here. */
  directory: string;
  /** Of all containers together. */
  megabytes: number;
  lineBytes: number;
  containers: number;
  /** Whether one more container writes a line now and then, and it is measured when that can be read. */
  quiet: boolean;
}

/** What an ordinary line has. */
export const ordinaryLine = 106;
/** Time, stream and tag of each line of a log. */
const prefixBytes = 40;
const blockBytes = 16 << 20;

const line = (bytes: number): string =>
  `${'an ordinary line of an ordinary log, about as long as such lines are: a request, its time, its answer'.padEnd(bytes, '.').slice(0, bytes - 1)}\n`;

/** Containers that write as fast as they can. */
export async function logRate(peer: Peer, load: LogLoad): Promise<LogRate> {
  const { directory, containers } = load;
  mkdirSync(directory);
  try {
    const block = line(load.lineBytes).repeat(Math.floor(blockBytes / load.lineBytes));
    writeFileSync(path.join(directory, 'block'), block);
    const rounds = Math.max(1, Math.round((load.megabytes * 1e6) / block.length / containers));
    const config = {
      metadata: { name: 'logs', namespace: 'bench', uid: randomUUID(), attempt: 0 },
      logDirectory: directory,
      linux: { cgroupParent: peer.account.path },
    };
    const { pods } = peer;
    const { podSandboxId: pod } = await pods.runPodSandbox({ config });
    const create = async (name: string, command: string): Promise<string> => {
      const created = await pods.createContainer({
        podSandboxId: pod,
        sandboxConfig: config,
        config: {
          metadata: { name, attempt: 0 },
          image: { image: containerImage },
          command: ['sh', '-c', command],
          mounts: [{ hostPath: directory, containerPath: '/bench', readonly: true }],
          logPath: `${name}.log`,
          linux: {},
        },
      });
      return created.containerId;
    };
    const flood = `i=0; while [ $i -lt ${rounds} ]; do cat /bench/block; i=$((i + 1)); done`;
    const names = Array.from({ length: containers }, (_, index) => `flood${index}`);
    const ids: string[] = [];
    for (const name of names) ids.push(await create(name, flood));
    let quiet: QuietLog | undefined;
    if (load.quiet) {
      await pods.startContainer({ containerId: await create('quiet', QuietLog.command) });
      quiet = await QuietLog.watch(path.join(directory, 'quiet.log'));
    }
    await run('sync', ['-f', directory]);
    const programs = [peer.pid!, ...peer.shims(pod)];
    const before = processorSeconds(programs);
    const startedAt = performance.now();
    const waiting = [...ids];
    await lanes(Math.min(4, containers), async () => {
      for (let id = waiting.pop(); id; id = waiting.pop()) await pods.startContainer({ containerId: id });
    });
    for (const id of ids) await ended(peer, id);
    const seconds = (performance.now() - startedAt) / 1000;
    const used = processorSeconds(programs) - before;
    const delays = quiet?.end() ?? [];
    await run('sync', ['-f', directory]);
    const syncedSeconds = (performance.now() - startedAt) / 1000;
    const bytes = rounds * block.length;
    // containerd leaves out zeros at the end of a time.
    const expected = bytes + (bytes / load.lineBytes) * (prefixBytes - 10);
    for (const name of names) {
      const { size } = statSync(path.join(directory, `${name}.log`));
      if (size < expected) throw new Error(`${peer.name}: the log has ${size} bytes of ${expected}`);
    }
    await removePod(peer, pod);
    const all = bytes * containers;
    return {
      perSecond: all / seconds,
      syncedPerSecond: all / syncedSeconds,
      cpuMs: (used * 1000) / (all / 1e6),
      delays,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function ended({ pods }: Peer, containerId: string): Promise<unknown> {
  return eventually(
    'the writer has ended',
    async () => {
      const { status } = await pods.containerStatus({ containerId });
      return status?.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    },
    600_000,
  );
}

/**
 * What the file system does with the bytes of the same log when somebody just writes them, a mebibyte at a time and with the daemon's share
 * of the processors. In bytes of output a second, as above.
 */
export async function plainRate(peer: Peer, load: LogLoad): Promise<{ perSecond: number; syncedPerSecond: number }> {
  const { directory, lineBytes } = load;
  mkdirSync(directory);
  try {
    const logBytes = load.megabytes * 1e6 * (1 + prefixBytes / lineBytes);
    const file = path.join(directory, 'plain.log');
    await run('sync', ['-f', directory]);
    const startedAt = performance.now();
    const writer = spawn('dd', ['if=/dev/zero', `of=${file}`, 'bs=1M', `count=${Math.round(logBytes / (1 << 20))}`], {
      stdio: 'ignore',
    });
    peer.account.add(writer.pid!);
    const [code] = await once(writer, 'exit');
    if (code !== 0) throw new Error(`dd ended with ${code}`);
    const seconds = (performance.now() - startedAt) / 1000;
    await run('sync', ['-f', directory]);
    const syncedSeconds = (performance.now() - startedAt) / 1000;
    const bytes = load.megabytes * 1e6;
    return { perSecond: bytes / seconds, syncedPerSecond: bytes / syncedSeconds };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
