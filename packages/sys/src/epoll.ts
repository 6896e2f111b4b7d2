/** epoll(7) for a thread that waits for descriptors and for nothing else. */
import { O } from './constants.ts';
import { close } from './files.ts';
import { check, lastErrno, native, sysError } from './libc.ts';

const createCall = native('epoll_create1', ['int']);
const controlCall = native('epoll_ctl', ['int', 'int', 'int', 'ptr']);
const waitCall = native('epoll_wait', ['int', 'ptr', 'int', 'int']);

const ADD = 1;
const DEL = 2;
const MOD = 3;
/** The structure is packed on x86-64 and nowhere else. */
const eventBytes = process.arch === 'x64' ? 12 : 16;
const dataOffset = eventBytes - 8;
const mostEvents = 64;

/** What a thread waits for. Level-triggered; a descriptor is removed before it is closed. */
export class Epoll {
  readonly #fd = check('epoll_create1', createCall(O.CLOEXEC));
  readonly #event = Buffer.alloc(eventBytes);
  readonly #events = Buffer.alloc(eventBytes * mostEvents);

  /** @param events of POLL */
  add(fd: number, events: number): void {
    this.#control(ADD, fd, events);
  }

  change(fd: number, events: number): void {
    this.#control(MOD, fd, events);
  }

  remove(fd: number): void {
    this.#control(DEL, fd, 0);
  }

  #control(operation: number, fd: number, events: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeInt32LE(fd, dataOffset);
    check('epoll_ctl', controlCall(this.#fd, operation, fd, this.#event));
  }

  /** Blocks this thread until some are ready, up to 64 of them. @param timeout milliseconds, -1: for ever */
  wait(timeout: number): number[] {
    const count = waitCall(this.#fd, this.#events, mostEvents, timeout);
    if (count < 0) {
      if (lastErrno() === 4) return [];
      throw sysError('epoll_wait', lastErrno());
    }
    return Array.from({ length: count }, (_, index) => this.#events.readInt32LE(index * eventBytes + dataOffset));
  }

  close(): void {
    close(this.#fd);
  }
}
