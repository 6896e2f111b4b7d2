import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildImage, busyboxLayer, type LayerBuilder } from '../test/lib/images.ts';
import { run } from '../test/lib/processes.ts';
import type { TestRegistry } from '../test/lib/registry.ts';
import type { Peer } from './peers.ts';

/** Where Debian has the CNI plugins. */
export const cniPlugins = '/usr/lib/cni';
/** What critest's containers are of. */
export const containerImage = 'registry.k8s.io/e2e-test-images/busybox:1.29-2';
/** What its pulls are of. */
export const pulledImage = 'registry.k8s.io/bench/pulled:1';

/** What is needed and is not there. */
export function missingForCri(critest: string): string | undefined {
  if (!existsSync(critest)) return `critest (${critest})`;
  return existsSync(path.join(cniPlugins, 'bridge')) ? undefined : `CNI plugins in ${cniPlugins}`;
}

const env = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];

/** The images that pods and critest need: of busybox all, so that nothing but the machine's own is run. */
export async function fillCriImages(directory: string, registry: TestRegistry): Promise<void> {
  const layouts = path.join(directory, 'cri-images');
  mkdirSync(layouts, { recursive: true });
  const busybox = path.join(layouts, 'busybox');
  const pause = path.join(layouts, 'pause');
  const pulled = path.join(layouts, 'pulled');
  // critest's containers are `top`.
  const topLayer: LayerBuilder = (root) => {
    mkdirSync(path.join(root, 'bin'));
    symlinkSync('busybox', path.join(root, 'bin/top'));
  };
  await buildImage(busybox, [busyboxLayer, topLayer], { Cmd: ['sh'], Env: env });
  await buildImage(pause, [busyboxLayer], { Entrypoint: ['/bin/sleep', '1000000'], User: '65535:65535' });
  await buildImage(pulled, [busyboxLayer, (root) => writeFileSync(path.join(root, 'mark'), 'pulled\n')], { Env: env });
  await registry.fill(busybox, 'e2e-test-images/busybox:1.29-2');
  await registry.fill(pause, 'pause:3.10.2');
  await registry.fill(pulled, 'bench/pulled:1');
}

/**
 * Gives a daemon a network of its own, with the same plugins for each, and the registry under every name.
 * @param runtime the OCI runtime's binary
 * @param network number of its /16 beneath 10.
 */
export function configureCri(peer: Peer, runtime: string, network: number, registry: TestRegistry): void {
  const { directory } = peer;
  mkdirSync(path.join(directory, 'hosts/_default'), { recursive: true });
  mkdirSync(path.join(directory, 'cni'), { recursive: true });
  writeFileSync(
    path.join(directory, 'hosts/_default/hosts.toml'),
    `[host."http://${registry.address}"]\n  capabilities = ["pull", "resolve"]\n`,
  );
  const ipam = {
    type: 'host-local',
    dataDir: `${directory}/ipam`,
    ranges: [[{ subnet: `10.${network}.0.0/16` }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  writeFileSync(
    path.join(directory, 'cni/10-bench.conflist'),
    JSON.stringify({
      cniVersion: '1.0.0',
      name: bridge(network),
      plugins: [{ type: 'bridge', bridge: bridge(network), isGateway: true, ipam }],
    }),
  );
  peer.config = `
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '${directory}/hosts'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['${cniPlugins}']
  conf_dir = '${directory}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '${runtime}'
  Root = '${peer.runtimeRoot}'
`;
}

function bridge(network: number): string {
  return `gantrybench${network % 100}`;
}

/** Removes what the network's plugins leave. */
export async function removeNetwork(network: number): Promise<void> {
  await run('ip', ['link', 'del', bridge(network)], { mayFail: true });
}

/** Removes every pod that a run which failed has left. */
export async function removePods({ pods }: Peer): Promise<void> {
  for (const { id } of (await pods.listPodSandbox({})).items) {
    await pods.stopPodSandbox({ podSandboxId: id });
    await pods.removePodSandbox({ podSandboxId: id });
  }
}

/**
 * A crun that takes the specifications of CRI: crun before 1.9 refuses an `ociVersion` after 1.0, and looks at nothing else of it. Rewriting
 * it is a shell and a sed for each container.
 */
export function tolerantCrun(directory: string, crun: string): string {
  const file = path.join(directory, 'crun');
  writeFileSync(
    file,
    `#!/bin/sh
for argument; do
  [ "$bundle" = next ] && bundle=$argument && sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$bundle/config.json"
  [ "$argument" = --bundle ] && bundle=next
done
exec ${crun} "$@"
`,
  );
  chmodSync(file, 0o755);
  return file;
}
