import { readFileSync } from 'node:fs';
import type { Any } from '@bufbuild/protobuf/wkt';
import { notFound, StatusError } from '@gantry/api';
import { type Cgroup, cgroupOfPid, createCgroup, type OomEvent, type Watch } from '@gantry/cgroups';
import { log } from './log.ts';

/** The cgroup of a container, found by its init process while that lives. */
export class ContainerCgroup {
  readonly #id: string;
  #found: Promise<Cgroup> | undefined;
  #paths: readonly string[] | undefined;
  #watch: Watch | undefined;
  #closed = false;
  /** Out-of-memory kills that were told of: the kernel may tell before it counts, and once for several. */
  #toldKills = 0n;

  constructor(id: string) {
    this.#id = id;
  }

  /** @throws StatusError NotFound when the process was gone before it was asked */
  #load(pid: number): Promise<Cgroup> {
    if (pid === 0) throw notFound('cgroup does not exist');
    if (!this.#found) {
      this.#found = cgroupOfPid(pid).then((found) => {
        if (isExiting(pid)) throw notFound('cgroup does not exist');
        return found;
      });
      this.#found.then(
        ({ paths }) => {
          this.#paths = paths;
        },
        // Asked again after a failure.
        () => {
          this.#found = undefined;
        },
      );
    }
    return this.#found;
  }

  /** Looks for it now, so that it is known when the process has ended. */
  find(pid: number): void {
    this.#load(pid).catch((error) => log.debug('cgroup not found', { id: this.#id, error }));
  }

  /** Settled when the look for it is over. A process that ends at once, killed for want of memory, must not start before. */
  async sought(): Promise<void> {
    await this.#found?.catch(() => undefined);
  }

  /** Its directories, if it was found. */
  get paths(): readonly string[] | undefined {
    return this.#paths;
  }

  /** Its metrics in the message of its version. */
  async stats(pid: number): Promise<Any> {
    try {
      return await (await this.#load(pid)).stats();
    } catch (error) {
      throw StatusError.wrap(error, 'failed to get stats');
    }
  }

  /** The processes in it and beneath. */
  async pids(pid: number): Promise<number[]> {
    return (await this.#load(pid)).procs(true);
  }

  /** Whether no process is in it or beneath; false also if that cannot be told any more. */
  async isEmpty(): Promise<boolean> {
    return (await this.#procs())?.length === 0;
  }

  /** Whether this is the only process in it and beneath; false also if that cannot be told. */
  async hasOnly(pid: number): Promise<boolean> {
    const procs = await this.#procs();
    return procs?.length === 1 && procs[0] === pid;
  }

  /** undefined if it was not found while its init process lived, or is gone. */
  async #procs(): Promise<number[] | undefined> {
    try {
      return await (await this.#found)?.procs(true);
    } catch (error) {
      log.debug('processes of a cgroup cannot be read', { id: this.#id, error });
      return undefined;
    }
  }

  /** Calls back for each kill by the kernel for want of memory. Failing to watch is not the container's failure. */
  async watchOom(pid: number, onOom: () => void, fromStart: boolean): Promise<void> {
    const tell = ({ kills }: OomEvent): void => {
      this.#toldKills += 1n;
      if (kills > this.#toldKills) this.#toldKills = kills;
      onOom();
    };
    try {
      const group = await this.#load(pid);
      // What was before is an earlier shim's to tell.
      if (!fromStart) this.#toldKills = await group.oomKills();
      const watch = await group.watchOom(tell, fromStart);
      if (this.#closed) watch.close();
      else this.#watch = watch;
    } catch (error) {
      log.debug('out-of-memory events cannot be watched', { id: this.#id, error });
    }
  }

  /** When its init process has ended: a kill that the watch has not told of, since the end was faster, is told of now. */
  async lastOom(onOom: () => void): Promise<void> {
    try {
      const kills = (await (await this.#found)?.oomKills()) ?? 0n;
      if (kills <= this.#toldKills) return;
      this.#toldKills = kills;
      onOom();
    } catch (error) {
      log.debug('out-of-memory kills cannot be read', { id: this.#id, error });
    }
  }

  close(): void {
    this.#closed = true;
    this.#watch?.close();
    this.#watch = undefined;
  }
}

const pfExiting = 4;

/** Of a process that is ending, cgroup v1 says that it is in the root: the numbers of the whole machine would be taken for its own. */
function isExiting(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [, , , , , , flags] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(flags) & pfExiting) !== 0;
  } catch {
    return true;
  }
}

/** Moves this process into the cgroup that runtime options name for the shim. */
export async function enterShimCgroup(path: string): Promise<void> {
  try {
    await (await createCgroup(path)).add(process.pid);
  } catch (error) {
    throw StatusError.wrap(error, `failed to join cgroup ${path}`);
  }
}
