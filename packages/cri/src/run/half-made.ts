import { Code, hasCode } from '@gantry/api';
import { orphanMs, orphansGone } from '@gantry/cni/orphans.ts';
import { type Cri, criContext } from '../cri.ts';
import { CriLabel } from '../labels.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { removePodSandbox } from '../verbs/remove-pod-sandbox.ts';

/**
 * Takes down pods that were never whole, of a daemon that was killed: nobody was answered, so nobody will remove them. One that cannot be
 * taken down stays in the list, not ready, for its client to remove.
 */
export async function takeDownUnfinished(cri: Cri, pods: readonly PodSandbox[]): Promise<void> {
  await Promise.all(
    pods.map(async ({ id }) => {
      try {
        // What such a plugin does after its DEL nobody would undo.
        await orphansGone(id, orphanMs);
        await removePodSandbox(cri, { $typeName: 'runtime.v1.RemovePodSandboxRequest', podSandboxId: id });
        cri.log.info('pod sandbox that was not finished is taken down', { id });
      } catch (error) {
        cri.log.warn('pod sandbox that was not finished cannot be taken down', { error, id });
      }
    }),
  );
}

/** Leases of pods that are gone go; snapshots that others hold for a container that came to nothing do. */
export async function sweepLeases(cri: Cri): Promise<void> {
  const ctx = criContext();
  const { leases } = cri.records;
  const known = (id: string): boolean => cri.containers.find(id) !== undefined || cri.sandboxes.find(id) !== undefined;
  for (const { id: lease, labels } of await leases.list(ctx)) {
    if (!labels[CriLabel.sandboxLease]) continue;
    if (!cri.sandboxes.find(lease)) {
      await leases.delete(ctx, lease);
      continue;
    }
    for (const { id, type } of await leases.listResources(ctx, lease)) {
      const [kind, snapshotter = ''] = type.split('/');
      if (kind !== 'snapshots' || !/^[0-9a-f]{64}$/.test(id) || known(id)) continue;
      try {
        await cri.snapshotters.get(ctx, snapshotter).remove(ctx, id);
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) cri.log.warn('snapshot of a container that is gone', { error, id });
      }
    }
  }
}
