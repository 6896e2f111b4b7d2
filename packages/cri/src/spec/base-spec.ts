import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { defaultSpec, parseJson, type RuntimeSpec } from '@gantry/oci';
import { kubernetesNamespace } from '../labels.ts';
import type { RuntimeHandler } from '../run/runtime-handlers.ts';

/** What specifications start from: containerd's default without what CRI decides, or of containers the handler's own file. */
export async function baseSpec(id: string, handler?: RuntimeHandler): Promise<RuntimeSpec> {
  const own = handler !== undefined && handler.base_runtime_spec !== '';
  const spec = own ? await readBase(handler) : defaultSpec(kubernetesNamespace, id);
  spec.linux ??= {};
  // Whether there may be more is the container's to say.
  if (spec.process) delete spec.process.noNewPrivileges;
  if (spec.process?.capabilities) {
    delete spec.process.capabilities.ambient;
    delete spec.process.capabilities.inheritable;
  }
  if (!own) {
    spec.mounts = (spec.mounts ?? []).filter(({ destination }) => destination !== '/run');
    if (spec.process) delete spec.process.rlimits;
    spec.linux.resources = { devices: [{ allow: false, access: 'rwm' }] };
  }
  // A file has that of who wrote it.
  spec.linux.cgroupsPath = `/${kubernetesNamespace}/${id}`;
  spec.root = { ...spec.root, path: 'rootfs' };
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
export function cgroupsPath(parent: string, id: string): string | undefined {
  if (parent === '') return undefined;
  // A slice is systemd's, whoever is to make the cgroup.
  const slice = path.basename(parent);
  return slice.endsWith('.slice') ? `${slice}:cri-containerd:${id}` : path.join(parent, id);
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
