/** Out-of-memory events of a v1 memory group: an eventfd registered with memory.oom_control. */
import { readSync } from 'node:fs';
import { join } from 'node:path';
import { AT_FDCWD, close, eventfd, hasErrno, O, openat, watchFd } from '@gantry/sys';
import { readKeyed, writeValue } from '../files.ts';
import type { OomEvent, Watch } from '../group.ts';

/** Watches for kills. The kernel also signals the eventfd when the group is removed: then its file is gone and the watch ends. */
export async function watchOom(directory: string, onOom: (event: OomEvent) => void, fromStart = false): Promise<Watch> {
  const control = openat(AT_FDCWD, join(directory, 'memory.oom_control'), O.RDONLY);
  const event = eventfd();
  try {
    await writeValue(directory, 'cgroup.event_control', `${event} ${control}`);
  } catch (error) {
    close(event);
    throw error;
  } finally {
    close(control);
  }
  let counted = 0n;
  let open = true;
  const stop = () => {
    if (!open) return;
    open = false;
    watch.close();
    close(event);
  };
  const look = async (count: bigint) => {
    const state = await readKeyed(directory, 'memory.oom_control');
    if (!state) return stop();
    if (!open) return;
    counted += count;
    // oom_kill is counted since Linux 4.13.
    const kills = state['oom_kill'] ?? counted;
    if (count === 0n && kills === 0n) return;
    onOom({ kills });
  };
  let reading: Promise<void> = Promise.resolve();
  const buffer = Buffer.alloc(8);
  const watch = watchFd(event, (error) => {
    if (error) return stop();
    try {
      readSync(event, buffer);
    } catch (failure) {
      if (!hasErrno(failure, 'EAGAIN')) throw failure;
      return;
    }
    const count = buffer.readBigUInt64LE();
    const next = () => look(count);
    reading = reading.then(next, next);
  });
  if (fromStart) {
    // The kernel does not tell of what was before.
    reading = look(0n);
    await reading;
  }
  return { close: stop };
}
