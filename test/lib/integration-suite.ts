import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './processes.ts';
import type { TestRegistry } from './registry.ts';
import { RegistryAtPublicNames } from './registry-https.ts';

export const goBin = path.resolve(import.meta.dirname, '../../.cache/go-bin');
const program = path.join(goBin, 'containerd-integration');
/** containerd's shim and CNI plugin that fail at will. */
export const failpoint = path.join(goBin, 'failpoint');
/** One that maps mounts, if it is there. */
export const newRunc = path.join(goBin, 'new/runc');
/** The suite has it built in. */
export const nriSocket = '/var/run/nri-test.sock';
/** Where the suite looks for addresses that are given out. */
export const ipamDirectory = '/var/lib/cni/gantry-integration';
/** Where it tries whether mounts can be id-mapped. */
const idmapProbe = '/var/lib/containerd-test';

/** Why the suite cannot be run here, if it cannot. */
export function missingForSuite(): string | false {
  for (const file of [program, path.join(failpoint, 'cni-bridge-fp'), path.join(goBin, 'containerd-shim-runc-v2')]) {
    if (!existsSync(file)) return `${path.basename(file)} is not in .cache/go-bin (npm test compiles it)`;
  }
  return false;
}

/** The daemon under test. */
export interface SuiteDaemon {
  readonly address: string;
  start(): Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** What the daemon's table of CRI's runtime has besides, and which tables follow it. @param directory of the lab */
export function suiteTables(directory: string): string {
  const runtimes = `plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes`;
  const conf = path.join(directory, 'cni-failing');
  mkdirSync(conf, { recursive: true });
  const range = (subnet: string) => [{ subnet }];
  const ipam = {
    type: 'host-local',
    dataDir: path.join(directory, 'ipam-failing'),
    ranges: [range('10.215.0.0/16')],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  const capabilities = { 'io.kubernetes.cri.pod-annotations': true };
  const plugin = { type: 'cni-bridge-fp', bridge: 'gantryintfp0', isGateway: true, capabilities, ipam };
  writeFileSync(
    path.join(conf, '10-failing.conflist'),
    JSON.stringify({ cniVersion: '1.0.0', name: 'gantryintfp0', plugins: [plugin] }),
  );
  // As containerd's own runs have it.
  return `  drain_exec_sync_io_timeout = '10s'
[${runtimes}.runc-fp]
  cni_conf_dir = '${conf}'
  cni_max_conf_num = 1
  pod_annotations = ['io.containerd.runtime.v2.shim.failpoint.*']
  runtime_type = 'io.containerd.runc-fp.v1'
  runtime_path = '${failpoint}/containerd-shim-runc-fp-v1'
[${runtimes}.own-shims]
  runtime_type = 'io.containerd.runc.v2'
  runtime_path = '${goBin}/containerd-shim-runc-v2'
[${runtimes}.newer]
  runtime_type = 'io.containerd.runc.v2'
[${runtimes}.newer.options]
  BinaryName = '${newRunc}'
`;
}

/** What a daemon that the suite starts itself is configured with besides. */
export function ownDaemonConfig(directory: string): string {
  return `version = 3
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '${directory}/hosts'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '${directory}/cni'
[plugins.'io.containerd.internal.v1.opt']
  path = '${directory}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
`;
}

/** containerd's integration tests of CRI and NRI, with the programs that they call by name. */
export class IntegrationSuite {
  readonly #directory: string;
  readonly #daemon: SuiteDaemon;
  readonly #public: RegistryAtPublicNames;
  readonly #restarting = new AbortController();
  readonly #restarts: Promise<void>;
  readonly #probeMade: boolean;

  private constructor(directory: string, daemon: SuiteDaemon, names: RegistryAtPublicNames) {
    this.#directory = directory;
    this.#daemon = daemon;
    this.#public = names;
    this.#probeMade = mkdirSync(idmapProbe, { recursive: true }) !== undefined;
    this.#restarts = this.#restartWhenAsked();
  }

  /**
   * @param daemon runs, with `suiteTables`
   * @param own what the suite starts as `containerd`; its configuration's tables besides those of the suite, and its shim
   */
  static async start(
    directory: string,
    daemon: SuiteDaemon,
    registry: TestRegistry,
    own: { command: string; config: string; shim: string },
  ): Promise<IntegrationSuite> {
    const bin = path.join(directory, 'bin');
    mkdirSync(bin);
    const script = (name: string, text: string) =>
      writeFileSync(path.join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    const asked = path.join(directory, 'restart');
    // The suite ends the daemon by name and waits for whoever starts it again. Here only this test's own may be meant.
    script('pkill', `echo "$1" > ${asked}.new && mv ${asked}.new ${asked}\nwhile [ -e ${asked} ]; do sleep 0.05; done`);
    script('pidof', 'exit 1');
    // It calls Docker for an archive of an image.
    script(
      'docker',
      `[ "$1" = save ] || exit 0
exec skopeo copy -q --insecure-policy --src-tls-verify=false "docker://${registry.address}/\${2#*/}" "docker-archive:$4:$2"`,
    );
    symlinkSync(path.join(goBin, 'ctr'), path.join(bin, 'ctr'));
    // Asked what it can do.
    if (existsSync(newRunc)) symlinkSync(newRunc, path.join(bin, 'runc'));
    symlinkSync(own.shim, path.join(bin, 'containerd-shim-runc-v2'));
    // Called with --root, --state, --address and --config.
    const config = path.join(directory, 'own.toml');
    writeFileSync(config, own.config);
    script(
      'containerd',
      `lab=$(dirname "$8")/lab.toml
[ -e "$lab" ] || printf "version = 3\\nimports = ['%s', '%s']\\n" "$8" ${config} > "$lab"
exec ${own.command} --root "$2" --state "$4" --address "$6" --config "$lab" --log-level debug`,
    );
    const names = await RegistryAtPublicNames.start(directory, registry, ['ghcr.io', 'registry.k8s.io']);
    return new IntegrationSuite(directory, daemon, names);
  }

  async #restartWhenAsked(): Promise<void> {
    const file = path.join(this.#directory, 'restart');
    while (!this.#restarting.signal.aborted) {
      if (existsSync(file)) {
        if (readFileSync(file, 'utf8').trim() === '-9') await this.#daemon.kill();
        else await this.#daemon.stop();
        await this.#daemon.start();
        rmSync(file);
      }
      await sleep(50, undefined, { signal: this.#restarting.signal }).catch(() => undefined);
    }
  }

  /** Runs tests of it; answers how each ended, and all that was printed. @param before a command that runs the rest of its arguments */
  async run(
    filter: readonly string[],
    before: readonly string[] = [],
  ): Promise<{ results: Map<string, string>; output: string }> {
    const bin = path.join(this.#directory, 'bin');
    const args = ['-cri-endpoint', `unix://${this.#daemon.address}`, '-build-dir', bin, '-test.v', ...filter];
    const env = { ...this.#public.environment, PATH: `${bin}:${process.env['PATH']}` };
    const [file, ...rest] = [...before, program, ...args];
    const { stdout, stderr } = await run(file!, rest, { mayFail: true, timeoutMs: 1_500_000, env });
    const results = new Map<string, string>();
    for (const [, result, name] of stdout.matchAll(/^\s*--- (PASS|FAIL|SKIP): (\S+)/gm)) results.set(name!, result!);
    return { results, output: stdout + stderr };
  }

  async close(): Promise<void> {
    this.#restarting.abort();
    await this.#restarts;
    this.#public.close();
    if (this.#probeMade) rmSync(idmapProbe, { recursive: true });
    rmSync(ipamDirectory, { recursive: true, force: true });
    await run('ip', ['link', 'del', 'gantryintfp0'], { mayFail: true });
  }
}
