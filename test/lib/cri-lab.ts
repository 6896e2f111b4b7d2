import assert from 'node:assert/strict';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { TestDaemon } from './daemon.ts';
import { buildImage, busyboxLayer } from './images.ts';
import { run } from './processes.ts';
import { TestRegistry } from './registry.ts';
import { mountsBeneath } from './temp-dir.ts';

const goBin = path.resolve(import.meta.dirname, '../../.cache/go-bin');
export const crictl = path.join(goBin, 'crictl');
const cniPlugins = '/usr/lib/cni';

/** A network that test pods are in: names and addresses of its own, so that labs do not meet. */
export interface LabNetwork {
  bridge: string;
  subnet: string;
  /** Ports of the host lead to pods: by iptables. */
  hostPorts?: boolean;
  /** More keys of the daemon's table for CNI. */
  settings?: string;
  /** Where is noted which addresses are given out; default beneath the lab's directory. */
  ipamDirectory?: string;
  /** Where plugins are besides Debian's. */
  plugins?: string;
}

/** A daemon with CRI, a registry with the images that pods need, and a network of its own. */
export class CriLab {
  readonly daemon: TestDaemon;
  readonly directory: string;
  readonly network: LabNetwork;
  #registry: TestRegistry | undefined;

  /** Why it cannot be used here, if it cannot. */
  static missing(): string | false {
    if (process.getuid?.() !== 0) return 'the daemon needs root';
    if (!existsSync(crictl)) return 'crictl is not in .cache/go-bin (npm test installs it when Go is there)';
    if (!existsSync(path.join(cniPlugins, 'bridge'))) return 'Debian’s containernetworking-plugins is not installed';
    return false;
  }

  constructor(directory: string, network: LabNetwork, extraConfig = '') {
    this.directory = directory;
    this.network = network;
    mkdirSync(path.join(directory, 'hosts/_default'), { recursive: true });
    mkdirSync(path.join(directory, 'cni'), { recursive: true });
    const config = `
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '${directory}/hosts'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
${extraConfig}
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [${[cniPlugins, network.plugins].filter(Boolean).map((each) => `'${each}'`)}]
  conf_dir = '${directory}/cni'
${network.settings ?? ''}
`;
    this.daemon = new TestDaemon(directory, config);
  }

  /** The configuration of a containerd of version 2 that has the same images and network: what tests lay beside this daemon. */
  get containerdConfig(): string {
    return `[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = 'registry.k8s.io/pause:3.10.2'
  disable_tcp_service = true
  restrict_oom_score_adj = true
  stream_server_port = '0'
[plugins.'io.containerd.grpc.v1.cri'.cni]
  conf_dir = '${this.directory}/cni'
  bin_dir = '/usr/lib/cni'
[plugins.'io.containerd.grpc.v1.cri'.registry]
  config_path = '${this.directory}/hosts'
`;
  }

  /** Serves the images of `fill` under every registry's name, and starts the daemon. */
  async start(fill: (registry: TestRegistry) => Promise<void> = (registry) => this.fill(registry)): Promise<void> {
    this.#registry = await TestRegistry.start(this.directory);
    await fill(this.#registry);
    writeFileSync(
      path.join(this.directory, 'hosts/_default/hosts.toml'),
      `[host."http://${this.#registry.address}"]\n  capabilities = ["pull", "resolve"]\n`,
    );
    const ipam = {
      type: 'host-local',
      dataDir: this.network.ipamDirectory ?? `${this.directory}/ipam`,
      ranges: [[{ subnet: this.network.subnet }]],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    writeFileSync(
      path.join(this.directory, 'cni/10-lab.conflist'),
      JSON.stringify({
        cniVersion: '1.0.0',
        name: this.network.bridge,
        plugins: this.network.hostPorts
          ? [
              { type: 'bridge', bridge: this.network.bridge, isGateway: true, ipMasq: true, promiscMode: true, ipam },
              { type: 'portmap', capabilities: { portMappings: true } },
            ]
          : [{ type: 'bridge', bridge: this.network.bridge, isGateway: true, ipam }],
      }),
    );
    await this.daemon.start();
  }

  /** A pod's process that only waits, and busybox. */
  async fill(registry: TestRegistry): Promise<void> {
    const env = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];
    const layouts = path.join(this.directory, 'layouts');
    mkdirSync(layouts);
    const busybox = path.join(layouts, 'busybox');
    const pause = path.join(layouts, 'pause');
    const volumes = path.join(layouts, 'volumes');
    await buildImage(busybox, [busyboxLayer], { Cmd: ['sh'], Env: env });
    await buildImage(pause, [busyboxLayer], { Entrypoint: ['/bin/sleep', '1000000'], User: '65535:65535' });
    const declared = { Cmd: ['sh'], Env: env, Volumes: { '/data': {} } };
    await buildImage(volumes, [busyboxLayer, dataLayer], declared);
    await registry.fill(busybox, 'library/busybox:1');
    await registry.fill(pause, 'pause:3.10.2');
    await registry.fill(volumes, 'library/volumes:1');
  }

  /** Runs crictl; fails if that does, unless `mayFail`. Answers what it printed. */
  async crictl(
    args: readonly string[],
    options: { mayFail?: boolean } = {},
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    const endpoint = `unix://${this.daemon.address}`;
    return await run(
      crictl,
      ['--runtime-endpoint', endpoint, '--image-endpoint', endpoint, '-t', '60s', ...args],
      options,
    );
  }

  async ok(...args: string[]): Promise<string> {
    return (await this.crictl(args)).stdout.trim();
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args)) as T;
  }

  /** Writes a configuration for crictl; answers the file. */
  file(name: string, config: object): string {
    const file = path.join(this.directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(config));
    return file;
  }

  /** A pod's configuration file. */
  pod(name: string, more: { linux?: object; [key: string]: unknown } = {}): string {
    return this.file(`pod-${name}`, {
      metadata: { name, namespace: 'lab', uid: `uid-${name}`, attempt: 0 },
      log_directory: path.join(this.directory, 'logs', name),
      linux: {},
      ...more,
    });
  }

  container(name: string, command: string[], more: object = {}): string {
    return this.file(`container-${name}`, {
      metadata: { name, attempt: 0 },
      image: { image: 'busybox:1' },
      command,
      log_path: `${name}.log`,
      linux: {},
      ...more,
    });
  }

  /** Makes the directories that NRI's plugins are installed in, to be filled before `start`. */
  nriDirectories(): { plugins: string; configuration: string } {
    const [plugins, configuration] = ['plugins', 'conf.d'].map((name) => path.join(this.directory, 'nri', name)) as [
      string,
      string,
    ];
    for (const directory of [plugins, configuration]) mkdirSync(directory, { recursive: true });
    return { plugins, configuration };
  }

  /** Ends all pods, and what the lab is made of; fails if mounts are left beneath its directory, which goes too. */
  async end(temp: { path: string; remove(): Promise<void> }): Promise<void> {
    await this.ok('rmp', '-a', '-f').catch(() => undefined);
    await this.close();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  }

  async close(): Promise<void> {
    await this.daemon.stop();
    await this.#registry?.close();
    await run('ip', ['link', 'del', this.network.bridge], { mayFail: true });
  }
}

/** What a volume begins with, and a link that leads out of the image. */
function dataLayer(directory: string): void {
  mkdirSync(path.join(directory, 'data'));
  symlinkSync('/data', path.join(directory, 'away'));
  writeFileSync(path.join(directory, 'data/kept'), 'from the image\n', { mode: 0o600 });
}
