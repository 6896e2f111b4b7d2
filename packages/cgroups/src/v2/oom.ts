/** Out-of-memory kills in a v2 group: memory.events changes, inotify tells. */
import { readSync } from 'node:fs';
import { join } from 'node:path';
import { close, hasErrno, IN, inotify, inotifyAdd, watchFd } from '@gantry/sys';
import { readKeyed } from '../files.ts';
import type { OomEvent, Watch } from '../group.ts';

/** Calls `onChange` whenever the kernel changed one of these files of a group. Of the group's removal inotify says nothing. */
export function watchFiles(directory: string, names: readonly string[], onChange: () => void): Watch {
  const fd = inotify();
  try {
    for (const name of names) inotifyAdd(fd, join(directory, name), IN.MODIFY);
  } catch (error) {
    close(fd);
    throw error;
  }
  const buffer = Buffer.alloc(4096);
  const watch = watchFd(fd, (error) => {
    if (error) stop();
    else drain(fd, buffer);
    onChange();
  });
  let open = true;
  const stop = () => {
    if (!open) return;
    open = false;
    watch.close();
    close(fd);
  };
  return { close: stop };
}

function drain(fd: number, buffer: Buffer): void {
  try {
    while (readSync(fd, buffer) > 0);
  } catch (error) {
    if (!hasErrno(error, 'EAGAIN')) throw error;
  }
}

/** Watches for kills until closed. cgroup.events is watched too, so that the end of the last process brings a last look. */
export async function watchOom(directory: string, onOom: (event: OomEvent) => void, fromStart = false): Promise<Watch> {
  let seen = fromStart ? 0n : ((await readKeyed(directory, 'memory.events'))?.['oom_kill'] ?? 0n);
  let ended = false;
  let reading: Promise<void> = Promise.resolve();
  const look = async () => {
    const events = ended ? undefined : await readKeyed(directory, 'memory.events');
    if (!events) return watch.close();
    const kills = events['oom_kill'] ?? 0n;
    if (ended || kills <= seen) return;
    seen = kills;
    onOom({ kills });
  };
  const watch = watchFiles(directory, ['memory.events', 'cgroup.events'], () => {
    // One look after the other: two at once could tell of one kill twice.
    reading = reading.then(look, look);
  });
  // A kill between the first look and the start of the watch.
  reading = look();
  await reading;
  return {
    close() {
      ended = true;
      watch.close();
    },
  };
}
