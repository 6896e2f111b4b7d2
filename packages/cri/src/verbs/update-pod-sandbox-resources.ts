import { create } from '@bufbuild/protobuf';
import { failedPrecondition } from '@gantry/api';
import { LinuxPodSandboxConfigSchema, type UpdatePodSandboxResourcesRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { type Cri, criContext } from '../cri.ts';
import { Extension } from '../labels.ts';
import { sandboxExtension } from '../store/pod-sandbox.ts';

/** Notes what a pod as a whole may use from now on, and tells plugins of it; its cgroup is the kubelet's own to change. */
export async function updatePodSandboxResources(cri: Cri, request: UpdatePodSandboxResourcesRequest): Promise<object> {
  const sandbox = cri.sandboxes.get(request.podSandboxId);
  const { id } = sandbox;
  await cri.locks.run(`sandbox ${id}`, async () => {
    if (sandbox.status.state !== 'ready') throw failedPrecondition(`sandbox "${id}" is not ready`);
    await cri.hooks.updatePodSandbox(sandbox, { overhead: request.overhead, resources: request.resources });
    const { config } = sandbox.metadata;
    config.linux ??= create(LinuxPodSandboxConfigSchema);
    if (request.overhead) config.linux.overhead = request.overhead;
    if (request.resources) config.linux.resources = request.resources;
    const ctx = criContext();
    const record = await cri.records.sandboxes.get(ctx, id);
    const extensions = { ...record.extensions, [Extension.sandbox]: sandboxExtension(sandbox.metadata) };
    await cri.records.sandboxes.update(ctx, { ...record, extensions }, ['extensions']);
    await cri.hooks.postUpdatePodSandbox(sandbox).catch((error) => cri.log.warn('hook', { error, id }));
  });
  return {};
}
