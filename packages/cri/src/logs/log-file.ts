import { closeSync, constants, fstatSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { StatusError } from '@gantry/api';
import { hasErrno } from '@gantry/sys';
import type { FileIdentity } from './log-journal.ts';
import type { LogFile } from './spooled-log.ts';

const mode = 0o640;

/**
 * Opens a container's log for appending, and makes what is missing of it and its directory.
 * @param earlier the file that an earlier daemon had open: if it is beside the log's path under another name, because it was being rotated
 * and nobody has asked for a new one yet, it is still the one
 * @throws StatusError
 */
export function openLogFile(logPath: string, earlier?: FileIdentity): LogFile {
  try {
    mkdirSync(path.dirname(logPath), { recursive: true, mode: 0o755 });
    return (earlier && findAgain(logPath, earlier)) ?? identified(openSync(logPath, 'a', mode));
  } catch (error) {
    throw StatusError.wrap(error, 'failed to create and open log file');
  }
}

function findAgain(logPath: string, earlier: FileIdentity): LogFile | undefined {
  const directory = path.dirname(logPath);
  const own = path.basename(logPath);
  const others = readdirSync(directory, { withFileTypes: true }).filter(
    (entry) => entry.isFile() && entry.name !== own,
  );
  for (const name of [own, ...others.map((entry) => entry.name)]) {
    try {
      const flags = constants.O_WRONLY | constants.O_APPEND | (name === own ? 0 : constants.O_NOFOLLOW);
      const file = identified(openSync(path.join(directory, name), flags | constants.O_NONBLOCK));
      if (file.identity.ino === earlier.ino && file.identity.dev === earlier.dev) return file;
      closeSync(file.fd);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ELOOP', 'ENXIO')) throw error;
    }
  }
  return undefined;
}

function identified(fd: number): LogFile {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return { fd, identity: { dev, ino } };
}
