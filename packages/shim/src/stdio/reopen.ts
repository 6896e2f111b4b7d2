import { fstatSync } from 'node:fs';
import { failedPrecondition } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat } from '@gantry/sys';
import { log } from '../log.ts';
import type { ProcessIo, StdioRequest } from './process-io.ts';

/**
 * The streams of a process that an earlier shim had started. The process has its ends; here only the FIFOs that its input and
 * direct output go through are held again, so that readers and writers may come and go. Terminals and relays ended with that shim.
 */
export function reopenProcessIo(request: StdioRequest, direct: boolean): ProcessIo {
  const held = new Map<'stdin' | 'output', number[]>([
    ['stdin', request.terminal ? [] : hold(request.stdin)],
    ['output', direct ? [...hold(request.stdout), ...hold(request.stderr)] : []],
  ]);
  const release = (which: 'stdin' | 'output'): void => {
    for (const fd of held.get(which)!.splice(0)) close(fd);
  };
  return {
    stdio: [null, null, null],
    started: async () => {},
    resize: () => {
      throw failedPrecondition('the terminal was lost with the shim that held it');
    },
    closeStdin: () => release('stdin'),
    exited: () => release('stdin'),
    drain: async () => {},
    close: () => {
      release('stdin');
      release('output');
    },
  };
}

function hold(name: string): number[] {
  if (name === '' || name.includes('://')) return [];
  try {
    const fd = openat(AT_FDCWD, name, O.RDWR | O.NONBLOCK | O.NOCTTY);
    if (fstatSync(fd).isFIFO()) return [fd];
    close(fd);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) log.warn('a FIFO cannot be held again', { name, error });
  }
  return [];
}
