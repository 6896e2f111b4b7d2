import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { defaultSpec, parseJson, type RuntimeSpec } from '@gantry/oci';
import { kubernetesNamespace } from '../labels.ts';
import { type RuntimeHandler, usesSystemdCgroups } from '../run/runtime-handlers.ts';

/** What specifications of pods start from: containerd's default without what CRI decides, or the handler's own file. */
export async function baseSpec(handler: RuntimeHandler, id: string): Promise<RuntimeSpec> {
  const spec = handler.base_runtime_spec === '' ? defaultSpec(kubernetesNamespace, id) : await readBase(handler);
  spec.linux ??= {};
  if (handler.base_runtime_spec === '') {
    spec.mounts = (spec.mounts ?? []).filter(({ destination }) => destination !== '/run');
    if (spec.process) {
      delete spec.process.rlimits;
      delete spec.process.noNewPrivileges;
    }
    spec.linux.resources = { devices: [{ allow: false, access: 'rwm' }] };
  }
  spec.linux.cgroupsPath ??= `/${kubernetesNamespace}/${id}`;
  spec.root = { path: 'rootfs' };
  return spec;
}

async function readBase({ base_runtime_spec: file, name }: RuntimeHandler): Promise<RuntimeSpec> {
  try {
    return parseJson<RuntimeSpec>(await readFile(file));
  } catch (error) {
    throw invalidArgument(`failed to load base OCI spec of runtime "${name}": ${(error as Error).message}`, error);
  }
}

/** The cgroup of a container in its pod's; undefined if the pod says nothing of it. */
export function cgroupsPath(parent: string, id: string, handler: RuntimeHandler): string | undefined {
  if (parent === '') return undefined;
  return usesSystemdCgroups(handler) ? `${path.basename(parent)}:cri-containerd:${id}` : path.join('/', parent, id);
}

/** Annotations of the pod or container that the handler passes on to its runtime, by shell patterns. */
export function passedAnnotations(
  annotations: Record<string, string>,
  patterns: readonly string[],
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations).filter(([key]) => patterns.some((pattern) => path.matchesGlob(key, pattern))),
  );
}
