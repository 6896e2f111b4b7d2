import { randomBytes } from 'node:crypto';
import { Code, hasCode, StatusError } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { RequestContext } from '../request-context.ts';
import type { Activation, MountManager } from './mount-manager.ts';

/** Types that the system mounts by itself, whatever handlers there are: a single one of them needs no activation. */
const plainTypes = new Set(['bind', 'overlay']);

/**
 * Calls `fn` with the mounts that are left when the manager has performed its own, and undoes those afterwards. `purpose` begins
 * the activation's name.
 */
export async function withActivation<T>(
  manager: MountManager | undefined,
  ctx: RequestContext,
  purpose: string,
  mounts: Mount[],
  fn: (mounts: Mount[]) => Promise<T>,
): Promise<T> {
  const [first] = mounts;
  if (!manager || !first || (mounts.length === 1 && plainTypes.has(first.type))) return await fn(mounts);
  return await activated(manager, ctx, purpose, mounts, (activation) => fn(activation?.system ?? mounts));
}

/** Calls `fn` with the places where the manager has performed each of the mounts, which it must have handlers for. */
export async function withPerformed<T>(
  manager: MountManager,
  ctx: RequestContext,
  purpose: string,
  mounts: readonly Mount[],
  fn: (places: string[]) => Promise<T>,
): Promise<T> {
  return await activated(manager, ctx, purpose, mounts, (activation) =>
    fn(activation?.active.map(({ mountPoint }) => mountPoint) ?? []),
  );
}

async function activated<T>(
  manager: MountManager,
  ctx: RequestContext,
  purpose: string,
  mounts: readonly Mount[],
  fn: (activation: Activation | undefined) => Promise<T>,
): Promise<T> {
  const name = `${purpose}-${Date.now()}-${randomBytes(9).toString('base64url')}`;
  let activation: Activation;
  try {
    activation = await manager.activate(ctx, name, mounts, { transient: true });
  } catch (error) {
    if (hasCode(error, Code.Unimplemented)) return await fn(undefined);
    throw StatusError.wrap(error, 'failed to activate mounts');
  }
  try {
    return await fn(activation);
  } finally {
    await manager.deactivate({ ...ctx, signal: undefined }, name);
  }
}
