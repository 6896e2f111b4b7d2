import { create } from '@bufbuild/protobuf';
import { failedPrecondition, jsonAny, TypeUrl } from '@gantry/api';
import {
  ContainerState,
  type LinuxContainerResources,
  LinuxContainerResourcesSchema,
  type UpdateContainerResourcesRequest,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { encodeJson, parseJson, type RuntimeSpec, type SpecResources } from '@gantry/oci';
import { type Cri, criContext, dirs } from '../cri.ts';
import { requireHugepages } from '../run/machine.ts';
import { mergeResources, specResources, toldResources } from '../spec/resources.ts';
import { stateOf, writeStatus } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';

/** Changes limits, also of a container that does not run yet. What is not given stays, as does its out-of-memory score, which is not changed so. */
export async function updateContainerResources(cri: Cri, request: UpdateContainerResourcesRequest): Promise<object> {
  const container = cri.containers.get(request.containerId);
  const { id } = container;
  await cri.locks.run(`container ${id}`, () => update(cri, container, request));
  return {};
}

async function update(cri: Cri, container: CriContainer, request: UpdateContainerResourcesRequest): Promise<void> {
  const { id, metadata } = container;
  if (container.status.removing) throw failedPrecondition(`container "${id}" is in removing state`);
  const state = stateOf(container.status);
  // One that has ended is never started again: there is nothing to limit, which clients take for done.
  if (state === ContainerState.CONTAINER_EXITED) return;
  if (state === ContainerState.CONTAINER_UNKNOWN) {
    throw failedPrecondition(`container "${id}" is in ${ContainerState[state]} state`);
  }
  const sandbox = cri.sandboxes.get(metadata.sandboxId);
  const asked = request.linux ?? create(LinuxContainerResourcesSchema);
  requireHugepages(cri.machine, asked);
  const changes = specResources(asked, cri.machine.swap, cri.machine.hugepages);
  await cri.hooks.updateContainer(sandbox, container, changes, asked);
  await setLimits(cri, container, changes, asked, request.annotations);
  await cri.hooks.postUpdateContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error, id }));
}

/**
 * Sets limits, in the record and where the container runs. Under a lock of its own, in which nobody is asked: plugins may want this of
 * one container while another is changed.
 */
export async function setLimits(
  cri: Cri,
  container: CriContainer,
  changes: SpecResources,
  asked: LinuxContainerResources = create(LinuxContainerResourcesSchema),
  annotations: Record<string, string> = {},
): Promise<void> {
  const { id } = container;
  await cri.locks.run(`limits ${id}`, async () => {
    const state = stateOf(container.status);
    if (state === ContainerState.CONTAINER_EXITED || state === ContainerState.CONTAINER_UNKNOWN) {
      throw failedPrecondition(`container "${id}" is in ${ContainerState[state]} state`);
    }
    const ctx = criContext();
    const record = await cri.records.containers.get(ctx, id);
    const before = record.spec!;
    const spec = parseJson<RuntimeSpec>(before.value);
    spec.linux ??= {};
    spec.linux.resources = mergeResources(spec.linux.resources ?? {}, changes);
    await cri.records.containers.update(ctx, { ...record, spec: jsonAny(TypeUrl.RuntimeSpec, encodeJson(spec)) }, [
      'spec',
    ]);
    if (state === ContainerState.CONTAINER_RUNNING) {
      try {
        const resources = { ...changes };
        await cri.tasks
          .get(ctx, id)
          .update(jsonAny(TypeUrl.RuntimeSpecLinuxResources, encodeJson(resources)), { ...annotations });
      } catch (error) {
        await cri.records.containers.update(ctx, { ...record, spec: before }, ['spec']);
        throw error;
      }
    }
    container.status = { ...container.status, resources: toldResources(spec, container.status.resources, asked) };
    await writeStatus(dirs.containerRoot(cri, id), container.status);
  });
}
