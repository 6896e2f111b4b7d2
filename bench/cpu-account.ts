import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { removeEmptyCgroup } from '@gantry/cgroups';

const top = '/sys/fs/cgroup';

/**
 * A cgroup around a daemon, its shims, the OCI runtimes they run and the containers: what all of them take of the processors, exactly, and
 * whatever else the machine does meanwhile. Containers join by a `cgroupsPath` beneath it.
 */
export class CpuAccount {
  /** Absolute, as `cgroupsPath` names it. */
  readonly path: string;
  readonly #v1: boolean;

  constructor(name: string) {
    this.path = `/${name}`;
    this.#v1 = existsSync(path.join(top, 'cpuacct'));
    for (const file of this.procs) mkdirSync(path.dirname(file), { recursive: true });
  }

  /**
   * The files that a process joins by. In version 2 only leaves may have processes, where there are controllers. It joins the group by which
   * processors are shared too, as a service of systemd does: else the kernel may share them by session, and each daemon has its own way there.
   */
  get procs(): string[] {
    return this.#v1
      ? ['cpuacct', 'cpu'].map((controller) => path.join(top, controller, this.path, 'cgroup.procs'))
      : [path.join(top, this.path, 'daemon', 'cgroup.procs')];
  }

  /**
   * Who is in it goes before whatever else the machine does. Latencies of milliseconds are those of waiting for a processor otherwise. Of
   * no effect where it is alone.
   */
  goFirst(): void {
    const [file, most] = this.#v1 ? ['cpu.shares', '262144'] : ['cpu.weight', '10000'];
    const group = path.join(top, this.#v1 ? 'cpu' : '', this.path, file);
    // In version 2 the controller need not be there.
    if (existsSync(group)) writeFileSync(group, most);
  }

  /** Moves a process into it. */
  add(pid: number): void {
    for (const file of this.procs) writeFileSync(file, String(pid));
  }

  /** Moves a process out of it again, to the top. */
  release(pid: number): void {
    const files = this.#v1 ? ['cpuacct', 'cpu'].map((controller) => path.join(top, controller)) : [top];
    for (const directory of files) writeFileSync(path.join(directory, 'cgroup.procs'), String(pid));
  }

  /** Seconds of processor time so far. */
  seconds(): number {
    if (this.#v1) return Number(readFileSync(path.join(top, 'cpuacct', this.path, 'cpuacct.usage'), 'utf8')) / 1e9;
    const stat = readFileSync(path.join(top, this.path, 'cpu.stat'), 'utf8');
    return Number(/^usage_usec (\d+)/m.exec(stat)?.[1]) / 1e6;
  }

  /** Removes it, once nobody is in it. */
  async remove(): Promise<void> {
    if (!this.#v1) await removeEmptyCgroup(`${this.path}/daemon`);
    await removeEmptyCgroup(this.path);
  }
}
