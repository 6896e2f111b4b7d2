import { lstatSync, readdirSync, rmdirSync, rmSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { socketPath } from '@gantry/rpc';

/** Removes the socket of a shim that was killed, which nobody else would. One at which somebody listens stays. */
export function removeDeadSocket(address: string): Promise<void> {
  return ifDead(address, (file) => {
    if (lstatSync(file, { throwIfNoEntry: false })?.isSocket()) unlinkSync(file);
  });
}

/** The same for a shim of ours that was killed with nothing in it: its sockets, its log, and its lists, which are empty. */
export function removeDeadGroup(address: string): Promise<void> {
  return ifDead(address, (file) => {
    for (const name of [file, `${file}.c`, `${file}.log`]) rmSync(name, { force: true });
    for (const list of [`${file}.d`, `${file}.sb`]) {
      try {
        rmdirSync(list);
      } catch {
        // Not there, or somebody has put something in.
      }
    }
  });
}

/** What shims of ours have left in their directory that were killed when no daemon had anything in them. */
export async function sweepDeadGroups(directory: string): Promise<void> {
  const dead = names(directory)
    .filter((name) => name.endsWith('.c'))
    .map((name) => path.join(directory, name.slice(0, -2)))
    .filter((file) => names(`${file}.d`).length === 0 && names(`${file}.sb`).length === 0);
  await Promise.all(dead.map((file) => removeDeadGroup(`unix://${file}`)));
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function ifDead(address: string, remove: (file: string) => void): Promise<void> {
  const file = socketPath(address);
  if (!file.startsWith('/')) return Promise.resolve();
  return new Promise((resolve) => {
    const probe = net.connect({ path: file });
    probe.once('connect', () => probe.destroy());
    probe.once('error', (error: NodeJS.ErrnoException) => {
      // Without a break, lest a new shim come to the same place in between.
      if (error.code === 'ECONNREFUSED') remove(file);
    });
    probe.once('close', () => resolve());
  });
}
