import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ContainerConfigSchema, PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { checkTable } from '@gantry/daemon/core/plugin/config-check.ts';
import type { ImageConfig, RuntimeSpec, SpecSeccomp } from '@gantry/oci';
import { type RuntimeConfig, runtimeConfig } from '../config/runtime-config.ts';
import { RuntimeHandlers } from '../run/runtime-handlers.ts';
import { fromJson } from '../wire-json.ts';
import type { ContainerMount } from './container-mounts.ts';
import { containerSpec } from './container-spec.ts';
import { sandboxSpec } from './sandbox-spec.ts';

const facts = path.resolve(import.meta.dirname, '../../../../../shared/facts');
const skip = existsSync(facts) ? false : 'the recorded facts are not beside this checkout';
const read = (name: string) => JSON.parse(readFileSync(path.join(facts, name), 'utf8'));

/** The configuration that the recorded containerd had, as far as it matters here. */
function settings(): RuntimeConfig {
  const raw = { restrict_oom_score_adj: true };
  return checkTable(runtimeConfig.fields, raw, { file: '', table: [] }, assert.fail) as unknown as RuntimeConfig;
}

/** The order of system calls says nothing; neither does how they are put together. */
function flattened(spec: RuntimeSpec): RuntimeSpec {
  const { seccomp } = spec.linux ?? {};
  if (!seccomp) return spec;
  const calls = (profile: SpecSeccomp) =>
    (profile.syscalls ?? [])
      .flatMap(({ names, ...rest }) =>
        names.map((name) =>
          JSON.stringify([
            name,
            rest.action,
            rest.errnoRet,
            rest.args?.map(({ index, value, op }) => [index, value, op]),
          ]),
        ),
      )
      .sort();
  return { ...spec, linux: { ...spec.linux, seccomp: { ...seccomp, syscalls: calls(seccomp) as never } } };
}

const noLabels = { process: '', mount: '' };
const userFiles = { passwd: 'root:x:0:0::/root:/bin/sh\n', group: 'root:x:0:\n' };
const pauseImage: ImageConfig = { config: { Entrypoint: ['/pause'], User: '65535:65535' } };

test('a pod’s process is specified as containerd 2.3.4 did', { skip }, async () => {
  const { info, status } = read('cri-pod-status.json');
  const made = await sandboxSpec({
    id: status.id,
    config: fromJson(PodSandboxConfigSchema, {
      ...info.config,
      linux: { ...info.config.linux, sysctls: { 'net.ipv4.ip_forward': '1' } },
    }),
    handler: new RuntimeHandlers(settings().containerd).get(''),
    settings: settings(),
    image: pauseImage,
    imageName: info.image,
    userFiles: { passwd: '', group: '' },
    netnsPath: info.runtimeSpec.linux.namespaces.find(({ type }: { type: string }) => type === 'network').path,
    directory: `/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/${status.id}`,
    shm: `/run/containerd/io.containerd.grpc.v1.cri/sandboxes/${status.id}/shm`,
    selinux: noLabels,
  });
  assert.deepEqual(flattened(JSON.parse(JSON.stringify(made))), flattened(info.runtimeSpec));
});

test('a container with limits, capabilities, volumes and a seccomp profile is specified as containerd 2.3.4 did', {
  skip,
}, async () => {
  const { info } = read('cri-container-status.json');
  const pod = read('cri-pod-status.json');
  const image = read('cri-image-status.json');
  const expected = info.runtimeSpec as RuntimeSpec;
  const config = fromJson(ContainerConfigSchema, info.config);
  const isPods = (destination: string): boolean => destination.startsWith('/etc/') || destination === '/dev/shm';
  const recorded = (expected.mounts ?? []).filter(({ type }) => type === 'bind');
  const mounts: ContainerMount[] = [
    ...recorded.filter(({ destination }) => destination === '/mnt'),
    ...recorded.filter(({ destination }) => isPods(destination)),
    ...recorded.filter(({ destination }) => destination !== '/mnt' && !isPods(destination)),
  ].map(({ destination, source = '', options = [] }) => ({
    containerPath: destination,
    hostPath: source,
    readonly: options.includes('ro'),
  }));
  const made = await containerSpec({
    id: read('cri-container-status.json').status.id,
    config,
    sandboxId: info.sandboxID,
    sandboxConfig: fromJson(PodSandboxConfigSchema, pod.info.config),
    sandboxPid: pod.info.pid,
    handler: new RuntimeHandlers(settings().containerd).get(''),
    settings: settings(),
    image: image.info.imageSpec,
    imageName: info.config.image.user_specified_image,
    userFiles,
    mounts,
    machine: { swap: true, hugepages: false, refusesHugepages: false },
    classes: {},
    selinux: noLabels,
  });
  assert.deepEqual(flattened(JSON.parse(JSON.stringify(made))), flattened(withEmptyPaths(expected)));
});

/** Go leaves out lists that are empty. */
function withEmptyPaths(spec: RuntimeSpec): RuntimeSpec {
  return {
    ...spec,
    linux: {
      ...spec.linux,
      maskedPaths: spec.linux?.maskedPaths ?? [],
      readonlyPaths: spec.linux?.readonlyPaths ?? [],
    },
  };
}

test('a privileged container gets what containerd 2.3.4 gave it, but for the devices of that machine', {
  skip,
}, async () => {
  const expected = read('cri-container-spec-privileged.json') as RuntimeSpec;
  const { info } = read('cri-container-status.json');
  const config = fromJson(ContainerConfigSchema, {
    ...info.config,
    linux: { ...info.config.linux, security_context: { privileged: true } },
  });
  const sandboxConfig = fromJson(PodSandboxConfigSchema, { linux: { security_context: { privileged: true } } });
  const made = await containerSpec({
    id: 'x',
    config,
    sandboxId: 'y',
    sandboxConfig,
    sandboxPid: 30191,
    handler: new RuntimeHandlers(settings().containerd).get(''),
    settings: settings(),
    image: {},
    imageName: 'i',
    userFiles,
    mounts: [],
    machine: { swap: true, hugepages: false, refusesHugepages: false },
    classes: {},
    selinux: noLabels,
  });
  for (const key of ['namespaces', 'resources'] as const) assert.deepEqual(made.linux?.[key], expected.linux?.[key]);
  assert.deepEqual(
    [made.linux?.seccomp, made.linux?.maskedPaths, made.linux?.readonlyPaths],
    [undefined, undefined, undefined],
  );
  assert.ok(made.linux?.devices?.some((device) => device.path === '/dev/null'));
  assert.ok(made.process?.capabilities?.bounding?.includes('CAP_SYS_ADMIN'));
  const options = (destination: string) => made.mounts?.find((mount) => mount.destination === destination)?.options;
  assert.deepEqual(options('/sys')?.at(-1), 'rw');
  assert.deepEqual(options('/sys/fs/cgroup')?.at(-1), 'rw');
});
