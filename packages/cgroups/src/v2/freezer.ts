/** Stopping all of a v2 group's processes: cgroup.freeze asks, cgroup.events tells when it is done. */
import { readKeyed, readNumber, writeValue } from '../files.ts';
import type { FreezerState } from '../group.ts';
import { watchFiles } from './oom.ts';

export async function freezerState(directory: string): Promise<FreezerState> {
  const wanted = (await readNumber(directory, 'cgroup.freeze')) === 1n;
  const frozen = (await readKeyed(directory, 'cgroup.events'))?.['frozen'] === 1n;
  return frozen ? 'frozen' : wanted ? 'freezing' : 'thawed';
}

/** Resolves when the group is in the asked state. */
export async function setFrozen(directory: string, frozen: boolean): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const look = async () => {
    const events = await readKeyed(directory, 'cgroup.events');
    if (!events) throw new Error(`${directory} was removed while it was being ${frozen ? 'frozen' : 'thawed'}`);
    if ((events['frozen'] === 1n) === frozen) resolve();
  };
  const watch = watchFiles(directory, ['cgroup.events'], () => look().catch(reject));
  try {
    await writeValue(directory, 'cgroup.freeze', frozen ? 1 : 0);
    await look();
    await promise;
  } finally {
    watch.close();
  }
}
