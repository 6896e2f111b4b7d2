import { randomBytes } from 'node:crypto';
import { type Client, Code, hasCode, type Mount } from '@gantry/client';

/**
 * What is left to mount once the daemon has performed what only it can: all of `mounts` if there is nothing for it to do, or it is
 * one from before containerd 2.2.
 */
export async function activateMounts(
  client: Client,
  name: string,
  mounts: Mount[],
  settings: { labels?: Record<string, string>; temporary?: boolean } = {},
): Promise<Mount[]> {
  try {
    return [...(await client.mounts.activate(name, mounts, settings)).system];
  } catch (reason) {
    if (hasCode(reason, Code.Unimplemented)) return mounts;
    if (hasCode(reason, Code.AlreadyExists)) return [...(await client.mounts.info(name)).system];
    throw reason;
  }
}

/** Undoes it. What is not there is well. */
export async function deactivateMounts(client: Client, name: string): Promise<void> {
  try {
    await client.mounts.deactivate(name);
  } catch (reason) {
    if (!hasCode(reason, Code.NotFound) && !hasCode(reason, Code.Unimplemented)) throw reason;
  }
}

/** Activates for as long as `use` takes, and five minutes at most, should this program or the daemon be killed over it. */
export async function withActivatedMounts<T>(
  client: Client,
  mounts: Mount[],
  use: (mounts: Mount[]) => Promise<T>,
): Promise<T> {
  const name = `ctr-${Date.now()}-${randomBytes(9).toString('base64url')}`;
  const labels = { 'containerd.io/gc.expire': new Date(Date.now() + 300_000).toISOString() };
  const system = await activateMounts(client, name, mounts, { labels });
  try {
    return await use(system);
  } finally {
    if (system !== mounts) await deactivateMounts(client, name);
  }
}
