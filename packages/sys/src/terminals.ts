/** Pseudo-terminals and terminal settings. */
import { AT_FDCWD, O } from './constants.ts';
import { close, ioctl, openat } from './files.ts';

/** A terminal's two ends; the caller closes both. */
export interface Pty {
  master: number;
  slave: number;
  slavePath: string;
}

/** A new pseudo-terminal, neither end the controlling terminal of this process. */
export function openPty(): Pty {
  const master = openat(AT_FDCWD, '/dev/ptmx', O.RDWR | O.NOCTTY);
  try {
    const number = Buffer.alloc(4);
    ioctl(master, 0x40045431, number); // TIOCSPTLCK 0: unlock
    ioctl(master, 0x80045430, number); // TIOCGPTN
    const slavePath = `/dev/pts/${number.readUInt32LE(0)}`;
    // TIOCGPTPEER opens the slave itself, whatever is mounted on /dev/pts here.
    const slave = ioctl(master, 0x5441, O.RDWR | O.NOCTTY | O.CLOEXEC);
    return { master, slave, slavePath };
  } catch (error) {
    close(master);
    throw error;
  }
}

export interface Winsize {
  rows: number;
  cols: number;
}

export function setWinsize(fd: number, size: Winsize): void {
  const struct = Buffer.alloc(8);
  struct.writeUInt16LE(size.rows, 0);
  struct.writeUInt16LE(size.cols, 2);
  ioctl(fd, 0x5414, struct);
}

export function getWinsize(fd: number): Winsize {
  const struct = Buffer.alloc(8);
  ioctl(fd, 0x5413, struct);
  return { rows: struct.readUInt16LE(0), cols: struct.readUInt16LE(2) };
}

const TCGETS = 0x5401;
const TCSETS = 0x5402;

/** Sets a terminal raw, as cfmakeraw(3) does; the returned function puts it back. */
export function makeRaw(fd: number): () => void {
  const saved = Buffer.alloc(36);
  ioctl(fd, TCGETS, saved);
  const raw = Buffer.from(saved);
  const change = (at: number, clear: number, set = 0) =>
    raw.writeUInt32LE(((raw.readUInt32LE(at) & ~clear) | set) >>> 0, at);
  change(0, 0o2753); // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
  change(4, 0o1); // OPOST
  change(8, 0o460, 0o60); // CSIZE PARENB, CS8
  change(12, 0o100113); // ISIG ICANON ECHO ECHONL IEXTEN
  raw[17 + 6] = 1; // VMIN
  raw[17 + 5] = 0; // VTIME
  ioctl(fd, TCSETS, raw);
  return () => {
    ioctl(fd, TCSETS, saved);
  };
}

/** Turns off the rewriting of newlines on output (ONLCR), as runc's console users expect of a container's terminal. */
export function clearOnlcr(fd: number): void {
  const state = Buffer.alloc(36);
  ioctl(fd, TCGETS, state);
  state.writeUInt32LE((state.readUInt32LE(4) & ~0o4) >>> 0, 4);
  ioctl(fd, TCSETS, state);
}

export function isTerminal(fd: number): boolean {
  try {
    ioctl(fd, TCGETS, Buffer.alloc(36));
    return true;
  } catch {
    return false;
  }
}
