import type { ShimContext } from './shim-context.ts';
import type { TaskProcess } from './task-process.ts';

/** Gives the daemon what of a process would end with this shim; sends nothing if that is what it has. */
export function keepDescriptors(
  context: ShimContext,
  { namespace, id }: { namespace: string; id: string },
  process: TaskProcess,
): void {
  const descriptors = new Map(process.io?.kept());
  const pidfd = process.exit ? undefined : context.reaper.pidfdOf(process.pid);
  if (pidfd !== undefined) descriptors.set('pidfd', pidfd);
  const kinds = [...descriptors.keys()].join();
  if (kinds === process.keptKinds) return;
  process.keptKinds = kinds;
  if (descriptors.size === 0) context.keeper.drop(namespace, id, process.execId);
  else context.keeper.keep({ namespace, id, exec: process.execId }, descriptors);
}
