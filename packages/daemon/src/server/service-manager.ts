// What systemd and its like are told (sd_notify) and what they hand over (socket activation).
import { readFileSync, readlinkSync } from 'node:fs';
import { sendDatagram } from '@gantry/sys/datagrams.ts';

/**
 * Tells the service manager of a change, as `READY=1`. Does nothing without NOTIFY_SOCKET.
 * @throws SysError if the manager cannot be reached
 */
export function notifyServiceManager(state: string): void {
  const address = process.env['NOTIFY_SOCKET'];
  if (address) sendDatagram(address, Buffer.from(state));
}

/** The path that a listening unix socket is bound to; undefined if it is none. */
function boundPath(fd: number): string | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  if (inode === undefined) return undefined;
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (fields[6] === inode) return fields[7];
  }
  return undefined;
}

/**
 * The sockets that were opened for this process before it started, by the path they listen on. Takes them: the variables
 * that announce them are removed, so that no child believes they are its own.
 */
export function takeActivatedSockets(): Map<string, number> {
  const sockets = new Map<string, number>();
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  if (pid !== undefined && Number(pid) === process.pid) {
    for (let fd = 3; fd < 3 + Number(count ?? 0); fd++) {
      const path = boundPath(fd);
      if (path !== undefined) sockets.set(path, fd);
    }
  }
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  return sockets;
}
