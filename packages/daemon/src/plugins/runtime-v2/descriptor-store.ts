import {
  type DescriptorAnswer,
  type DescriptorKind,
  type DescriptorRequest,
  type KeptProcess,
  now,
  type Time,
} from '@gantry/api';
import { close, type FdWatch, listenPackets, PacketSocket, watchFd } from '@gantry/sys';
import type { Logger } from '../../core/log/logger.ts';

/** The descriptors of one process. */
interface Kept {
  name: KeptProcess;
  kinds: DescriptorKind[];
  fds: number[];
  /** Who gave them: while that connection lives, its shim watches the process itself. */
  giver: PacketSocket;
  watch?: FdWatch;
  exitedAt?: Time;
}

/**
 * Keeps descriptors of containers' processes (terminals, what holds their streams open, pidfds) for gantry-shim, so that they outlive
 * it; systemd does the same for services. A shim gives them again to a daemon that was started again, and what it gives of a process
 * replaces what was kept of it. See docs/descriptor-store.md.
 */
export class DescriptorStore {
  readonly path: string;
  /** By container (namespace and id), then by exec. */
  readonly #kept = new Map<string, Map<string, Kept>>();
  readonly #connections = new Set<PacketSocket>();
  readonly #log: Logger;
  #listening: { close(): void } | undefined;

  private constructor(path: string, log: Logger) {
    this.path = path;
    this.#log = log;
  }

  /** Listens at a path of the daemon's own. @throws SysError, RangeError if the path is too long for a socket */
  static listen(path: string, log: Logger): DescriptorStore {
    const store = new DescriptorStore(path, log);
    store.#listening = listenPackets(path, (fd) => store.#connected(fd));
    return store;
  }

  /** How many descriptors are kept. */
  get size(): number {
    let size = 0;
    for (const processes of this.#kept.values()) for (const { fds } of processes.values()) size += fds.length;
    return size;
  }

  /** Closes what is kept for a process, or without `exec` for all of a container. */
  drop(namespace: string, id: string, exec?: string): void {
    const key = keyOf(namespace, id);
    const processes = this.#kept.get(key);
    if (!processes) return;
    for (const [name, kept] of processes) {
      if (exec !== undefined && name !== exec) continue;
      release(kept);
      processes.delete(name);
    }
    if (processes.size === 0) this.#kept.delete(key);
  }

  close(): void {
    this.#listening?.close();
    for (const connection of this.#connections) connection.close();
    this.#connections.clear();
    for (const processes of this.#kept.values()) for (const kept of processes.values()) release(kept);
    this.#kept.clear();
  }

  #connected(fd: number): void {
    const connection = new PacketSocket(fd, {
      packet: (data, fds) => this.#packet(connection, data, fds),
      gone: () => this.#gone(connection),
    });
    this.#connections.add(connection);
  }

  #packet(connection: PacketSocket, data: Buffer, fds: number[]): void {
    try {
      const { keep, drop, take } = JSON.parse(data.toString('utf8')) as DescriptorRequest;
      if (keep) {
        this.#keep(connection, keep, fds);
        fds = [];
      } else if (drop) this.drop(drop.namespace, drop.id, drop.exec);
      else if (take) this.#give(connection, take);
      else throw new Error('unknown request');
    } catch (error) {
      this.#log.warn('a request to keep descriptors is refused', { error });
    } finally {
      for (const fd of fds) close(fd);
    }
  }

  #keep(giver: PacketSocket, { namespace, id, exec, kinds }: NonNullable<DescriptorRequest['keep']>, fds: number[]) {
    if (![namespace, id, exec].every((name) => typeof name === 'string') || kinds?.length !== fds.length)
      throw new Error(`${fds.length} descriptors for ${JSON.stringify(kinds)}`);
    this.drop(namespace, id, exec);
    const key = keyOf(namespace, id);
    const processes = this.#kept.get(key) ?? new Map<string, Kept>();
    this.#kept.set(key, processes);
    processes.set(exec, { name: { namespace, id, exec }, kinds, fds, giver });
  }

  #give(connection: PacketSocket, { namespace, id }: { namespace: string; id: string }): void {
    for (const { name, kinds, fds, exitedAt } of this.#kept.get(keyOf(namespace, id))?.values() ?? []) {
      const at = exitedAt && { exitedAt: { seconds: String(exitedAt.seconds), nanos: exitedAt.nanos } };
      answer(connection, { kept: { ...name, kinds, ...at } }, fds);
    }
    answer(connection, { taken: { namespace, id } });
  }

  /** A shim has ended. Until the next one takes over, the time of each exit is noted here. */
  #gone(connection: PacketSocket): void {
    this.#connections.delete(connection);
    for (const processes of this.#kept.values())
      for (const kept of processes.values()) {
        const pidfd = kept.fds[kept.kinds.indexOf('pidfd')];
        if (kept.giver !== connection || pidfd === undefined) continue;
        kept.watch = watchFd(pidfd, () => {
          kept.exitedAt = now();
          kept.watch?.close();
        });
        kept.watch.unref();
      }
  }
}

function answer(connection: PacketSocket, message: DescriptorAnswer, fds: readonly number[] = []): void {
  connection.send(Buffer.from(JSON.stringify(message)), fds);
}

function release(kept: Kept): void {
  kept.watch?.close();
  for (const fd of kept.fds) close(fd);
}

function keyOf(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}
