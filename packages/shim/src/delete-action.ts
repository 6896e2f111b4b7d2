import { existsSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { askControl } from './control-client.ts';
import type { ShimFlags } from './flags.ts';
import { readRecord, sandboxRecordName } from './record.ts';
import { writeField } from './wire.ts';

/** The status of a container that was ended because its shim is gone. */
const killed = 137;

/**
 * The `delete` action: the daemon has lost the shim and wants nothing left of a container. Daemons also call it after an ordinary
 * Delete, when nothing is left; that must cost little.
 * @returns a containerd.task.v2.DeleteResponse
 */
export async function deleteAction(flags: ShimFlags): Promise<Buffer> {
  if (flags.id === '') throw new Error('shim id is empty: -id is required');
  const bundle = path.resolve(flags.bundle || process.cwd());
  const real = existsSync(bundle) ? realpathSync(bundle) : undefined;
  const record = real === undefined ? undefined : readRecord(real);
  if (record && record.id === flags.id) {
    const { removeContainer } = await import('./remove-container.ts');
    await removeContainer(record);
    await forget(record);
  } else if (!record) {
    const { removeLost } = await import('./remove-lost.ts');
    await removeLost(flags.namespace, flags.id, bundle);
  }
  if (real !== undefined && existsSync(path.join(real, sandboxRecordName))) {
    const { removeSandbox } = await import('./sandbox/remove-sandbox.ts');
    const sandbox = await removeSandbox(real);
    if (sandbox) await forget(sandbox);
  }
  const millis = Date.now();
  const exitedAt = Buffer.concat([
    writeField(1, Math.floor(millis / 1000)),
    writeField(2, (millis % 1000) * 1_000_000),
  ]);
  return Buffer.concat([
    ...(record?.init ? [writeField(1, record.init.pid)] : []),
    writeField(2, record?.init?.exit?.exitStatus ?? killed),
    writeField(3, exitedAt),
  ]);
}

/** Tells the shim that this is no longer its concern, if it lives after all; else leaves nothing of a shim that has nothing any more. */
async function forget({ control, namespace, id }: { control: string; namespace: string; id: string }): Promise<void> {
  if (await askControl(control, { forget: { namespace, id } }, 2000)) return;
  const { removeFromDeadGroup } = await import('./remove-group.ts');
  await removeFromDeadGroup(control, namespace, id);
}
