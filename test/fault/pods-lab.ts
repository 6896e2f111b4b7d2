import path from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type ContainerConfigSchema,
  ImageService,
  type PodSandboxConfigSchema,
  RuntimeService,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { createClient, grpcTransport } from '@gantry/rpc';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { type Connection, connect } from './connection.ts';
import type { Victim } from './outlive-lab.ts';
import { endProcesses, removeCgroups } from './survey.ts';

/** CRI as the kubelet calls it: on one connection, for one life of the daemon. */
export function connectCri(address: string) {
  const transport = grpcTransport(address);
  return {
    runtime: createClient(RuntimeService, transport),
    images: createClient(ImageService, transport),
    close: () => transport.close(),
  };
}

export type CriConnection = ReturnType<typeof connectCri>;
/** As an object literal has it. */
type Init<T> = Exclude<T, { $typeName: string }>;
export type PodConfig = Init<MessageInitShape<typeof PodSandboxConfigSchema>>;
export type ContainerConfig = Init<MessageInitShape<typeof ContainerConfigSchema>>;

/** A node's runtime with a network, cgroup and directories of its own, in which pods come and go. */
export class PodsLab {
  readonly temp;
  readonly cri: CriLab;
  /** What all pods' cgroups are beneath. */
  readonly cgroup: string;
  connection!: Connection;
  client!: CriConnection;

  constructor(name: string, network: { bridge: string; subnet: string }) {
    this.temp = makeTempDir(name);
    this.cgroup = path.basename(this.temp.path);
    this.cri = new CriLab(
      this.temp.path,
      network,
      `  netns_mounts_under_state_dir = true
[debug]
  address = '${this.temp.path}/debug.sock'
[plugins.'io.containerd.shim.v1.manager']
  idle_timeout = '1s'
`,
    );
  }

  get directory(): string {
    return this.temp.path;
  }

  get daemon() {
    return this.cri.daemon;
  }

  async open(): Promise<void> {
    await this.cri.start();
    await this.#connect();
    for (const image of ['busybox:1', 'registry.k8s.io/pause:3.10.2'])
      await this.client.images.pullImage({ image: { image } }, { timeoutMs: 60_000 });
  }

  /** Starts the daemon after a kill. */
  async start(): Promise<void> {
    await this.daemon.start();
    await this.#connect();
  }

  async #connect(): Promise<void> {
    this.connection = connect(this.daemon.address, 'k8s.io');
    this.client = connectCri(this.daemon.address);
    await this.connection.ready(30_000);
  }

  disconnect(): void {
    this.connection?.close();
    this.client?.close();
  }

  /** `kill -9`. The connection is closed with the daemon. */
  async kill(victim: Victim): Promise<void> {
    if (victim !== 'daemon') for (const pid of this.shims()) process.kill(pid, 'SIGKILL');
    if (victim === 'shim') return;
    await this.daemon.kill();
    this.disconnect();
  }

  shims(): number[] {
    return processesMentioning(this.directory)
      .filter(({ command }) => command.startsWith('gantry-shim '))
      .map(({ pid }) => pid);
  }

  podConfig(name: string, more: PodConfig = {}): PodConfig {
    return {
      metadata: { name, namespace: 'churn', uid: `uid-${name}`, attempt: 0 },
      hostname: name,
      logDirectory: path.join(this.directory, 'logs', name),
      labels: { app: 'churn' },
      linux: { cgroupParent: `/${this.cgroup}` },
      ...more,
    };
  }

  containerConfig(name: string, command: string, more: ContainerConfig = {}): ContainerConfig {
    return {
      metadata: { name, attempt: 0 },
      image: { image: 'busybox:1' },
      command: ['sh', '-c', command],
      labels: { container: name },
      logPath: `${name}.log`,
      linux: {},
      ...more,
    };
  }

  async runPod(config: PodConfig, timeoutMs = 120_000): Promise<string> {
    return (await this.client.runtime.runPodSandbox({ config }, { timeoutMs })).podSandboxId;
  }

  async create(podSandboxId: string, config: ContainerConfig, sandboxConfig: PodConfig): Promise<string> {
    const request = { podSandboxId, config, sandboxConfig };
    return (await this.client.runtime.createContainer(request, { timeoutMs: 120_000 })).containerId;
  }

  /** Process of a container, or of a pod. */
  async pidOf(kind: 'container' | 'pod', id: string): Promise<number> {
    const { info } =
      kind === 'pod'
        ? await this.client.runtime.podSandboxStatus({ podSandboxId: id, verbose: true })
        : await this.client.runtime.containerStatus({ containerId: id, verbose: true });
    return (JSON.parse(info['info'] ?? '{}') as { pid?: number }).pid ?? 0;
  }

  /** Removes all pods, whatever they are. */
  async removeAll(): Promise<void> {
    const { items } = await this.client.runtime.listPodSandbox({});
    await Promise.all(
      items.map(({ id }) => this.client.runtime.removePodSandbox({ podSandboxId: id }, { timeoutMs: 120_000 })),
    );
  }

  /** The end of the daemon's log, without what every start says. */
  log(): string {
    const lines = this.daemon.log().split('\n');
    return lines
      .filter((line) => !line.includes('loading plugin'))
      .slice(-80)
      .join('\n');
  }

  async close(): Promise<void> {
    await this.removeAll().catch(() => undefined);
    this.disconnect();
    await this.cri.close();
    await endProcesses(this.directory);
    // A process that was killed has its cgroup for a moment more.
    await eventually('cgroups are empty', () => attempt(() => removeCgroups(this.cgroup)));
    await this.temp.remove();
  }
}

function attempt(work: () => void): true | undefined {
  try {
    work();
    return true;
  } catch {
    return undefined;
  }
}
