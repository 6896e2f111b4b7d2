import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type ContainerConfigSchema,
  ImageService,
  type PodSandboxConfigSchema,
  RuntimeService,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { type Client, createClient, grpcTransport } from '@gantry/rpc';
import { containerd2, TestContainerd } from './containerd.ts';
import { TestDaemon } from './daemon.ts';
import { run } from './processes.ts';
import { TestRegistry } from './registry.ts';

/** As an object literal has it. */
type Init<T> = Exclude<T, { $typeName: string }>;
export type PodConfig = Init<MessageInitShape<typeof PodSandboxConfigSchema>>;
export type ContainerConfig = Init<MessageInitShape<typeof ContainerConfigSchema>>;

const cniPlugins = '/usr/lib/cni';

/** One of the two daemons, and what it is asked with. */
export interface Twin {
  readonly name: 'gantry' | 'containerd';
  readonly directory: string;
  readonly address: string;
  readonly runtime: Client<typeof RuntimeService>;
  readonly images: Client<typeof ImageService>;
}

/** Gantry and containerd 2.3.4 with the same configuration, images and kind of network. */
export class CriTwins {
  readonly directory: string;
  readonly twins: [Twin, Twin];
  readonly #gantry: TestDaemon;
  readonly #containerd: TestContainerd;
  readonly #networks: readonly string[];
  readonly #transports: ReturnType<typeof grpcTransport>[] = [];
  #registry: TestRegistry | undefined;

  /** Why they cannot be had here, if they cannot. */
  static missing(): string | false {
    if (process.getuid?.() !== 0) return 'the daemons need root';
    if (!existsSync(path.join(cniPlugins, 'bridge'))) return 'Debian’s containernetworking-plugins is not installed';
    return TestContainerd.missing(containerd2);
  }

  /** @param networks a bridge and the first two bytes of its subnet for each; @param config tables that both have */
  constructor(
    directory: string,
    networks: readonly [{ bridge: string; subnet: string }, { bridge: string; subnet: string }],
    config: string,
  ) {
    this.directory = directory;
    this.#networks = networks.map(({ bridge }) => bridge);
    const sides = networks.map(({ bridge, subnet }, side) => {
      const own = path.join(directory, side === 0 ? 'g' : 'c');
      mkdirSync(path.join(own, 'cni'), { recursive: true });
      const ipam = {
        type: 'host-local',
        dataDir: `${own}/ipam`,
        ranges: [[{ subnet }]],
        routes: [{ dst: '0.0.0.0/0' }],
      };
      writeFileSync(
        path.join(own, 'cni/10-twin.conflist'),
        JSON.stringify({
          cniVersion: '1.0.0',
          name: 'twin',
          plugins: [{ type: 'bridge', bridge, isGateway: true, ipam }],
        }),
      );
      return { own, config: tables(directory, own, config) };
    });
    for (const { own } of sides) chmodSync(own, 0o711);
    chmodSync(directory, 0o711);
    const [g, c] = [sides[0]!, sides[1]!];
    this.#gantry = new TestDaemon(g.own, g.config);
    this.#containerd = new TestContainerd(c.own, containerd2, {}, c.config);
    const twin = (name: Twin['name'], own: string, address: string): Twin => {
      const transport = grpcTransport(address);
      this.#transports.push(transport);
      return {
        name,
        directory: own,
        address,
        runtime: createClient(RuntimeService, transport),
        images: createClient(ImageService, transport),
      };
    };
    this.twins = [twin('gantry', g.own, this.#gantry.address), twin('containerd', c.own, this.#containerd.address)];
  }

  /** @param fill puts images into the registry that stands for all */
  async start(fill: (registry: TestRegistry) => Promise<void>): Promise<void> {
    this.#registry = await TestRegistry.start(this.directory);
    mkdirSync(path.join(this.directory, 'hosts/_default'), { recursive: true });
    await fill(this.#registry);
    writeFileSync(
      path.join(this.directory, 'hosts/_default/hosts.toml'),
      `[host."http://${this.#registry.address}"]\n  capabilities = ["pull", "resolve"]\n`,
    );
    await Promise.all([this.#gantry.start(), this.#containerd.start()]);
  }

  /** Removes the pods that are left, and ends both. */
  async close(): Promise<void> {
    for (const { runtime } of this.twins) {
      const { items } = await runtime.listPodSandbox({}).catch(() => ({ items: [] }));
      await Promise.all(
        items.map(async ({ id }) => {
          await runtime.stopPodSandbox({ podSandboxId: id }).catch(() => undefined);
          await runtime.removePodSandbox({ podSandboxId: id }).catch(() => undefined);
        }),
      );
    }
    await Promise.all(this.#transports.map((transport) => transport.close()));
    await Promise.all([this.#gantry.stop(), this.#containerd.stop()]);
    await this.#registry?.close();
    for (const bridge of this.#networks) await run('ip', ['link', 'del', bridge], { mayFail: true });
  }
}

function tables(shared: string, own: string, config: string): string {
  return `
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '${shared}/hosts'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['${cniPlugins}']
  conf_dir = '${own}/cni'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
${config}`;
}
