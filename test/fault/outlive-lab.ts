import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, jsonAny, packAny, TypeUrl } from '@gantry/api';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { defaultSpec, withImageConfig } from '@gantry/oci';
import { TestDaemon } from '../lib/daemon.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';
import { type Connection, connect } from './connection.ts';
import { OutputReader } from './stream-client.ts';
import { cgroupFolders, endProcesses, nothingRuns, removeCgroups } from './survey.ts';

/** Who dies. */
export type Victim = 'daemon' | 'shim' | 'both';

/** The exit code of a process that nobody could see ending. */
export const unknownExit = 255;

/** Whether the kernel tells exit codes also of processes that somebody else has waited for (Linux 6.15). */
export const exitCodesKept = ((): boolean => {
  const [major = 0, minor = 0] = os.release().split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 15);
})();

/** A daemon, its shim, and containers without images, on one root file system of busybox. */
export class OutliveLab {
  readonly temp = makeTempDir('outlive');
  readonly daemon = new TestDaemon(
    path.join(this.temp.path, 'd'),
    "[plugins.'io.containerd.shim.v1.manager']\n  idle_timeout = '1s'\n",
  );
  readonly namespace = 'outlive';
  readonly cgroup = path.basename(this.temp.path);
  connection!: Connection;
  readonly #readers = new Set<OutputReader>();
  #files = 0;

  get directory(): string {
    return this.temp.path;
  }

  async open(): Promise<void> {
    const rootfs = path.join(this.directory, 'rootfs');
    for (const folder of ['bin', 'dev', 'proc', 'sys', 'tmp', 'run'])
      mkdirSync(path.join(rootfs, folder), { recursive: true });
    copyFileSync('/bin/busybox', path.join(rootfs, 'bin/busybox'));
    for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
      if (applet !== 'busybox') symlinkSync('busybox', path.join(rootfs, 'bin', applet));
    mkdirSync(path.join(this.directory, 'io'));
    await this.start();
  }

  /** Starts the daemon. @returns how long it took until it took connections, milliseconds */
  async start(): Promise<number> {
    const begun = performance.now();
    await this.daemon.start();
    this.connection = connect(this.daemon.address, this.namespace);
    await this.connection.ready(10_000);
    return performance.now() - begun;
  }

  /** `kill -9`. The connection is closed with the daemon. */
  async kill(victim: Victim): Promise<void> {
    // At the same moment, as nearly as signals can be sent.
    if (victim !== 'daemon') for (const { pid } of this.shims()) process.kill(pid, 'SIGKILL');
    if (victim === 'shim') return;
    await this.daemon.kill();
    this.connection.close();
  }

  shims(): { pid: number }[] {
    return processesMentioning(this.directory).filter(({ command }) => command.startsWith('gantry-shim '));
  }

  /** A new path in the folder of FIFOs. */
  file(name: string): string {
    return path.join(this.directory, 'io', `${name}-${++this.#files}`);
  }

  /** A client's end of an output; what a failed test leaves open is closed with the lab. */
  reader(name: string, prefix = ''): OutputReader {
    const reader = new OutputReader(this.file(name), prefix);
    this.#readers.add(reader);
    return reader;
  }

  /** A container's record and its task, not started yet. */
  async create(
    id: string,
    command: string,
    io: { stdin?: string; stdout?: string; terminal?: boolean },
  ): Promise<void> {
    const { containers, tasks } = this.connection;
    const spec = defaultSpec(this.namespace, id);
    withImageConfig(spec, { Env: ['PATH=/bin', `GANTRY_FAULT=${this.directory}`] }, ['sh', '-c', command]);
    spec.process!.terminal = io.terminal ?? false;
    spec.linux!.cgroupsPath = `/${this.cgroup}/${id}`;
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== 'network');
    const options = packAny(OptionsSchema, { binaryName: 'runc', root: path.join(this.directory, 'runc') });
    await containers.create({
      container: {
        id,
        runtime: { name: 'io.containerd.runc.v2', options },
        spec: jsonAny(TypeUrl.RuntimeSpec, JSON.stringify(spec)),
      },
    });
    await tasks.create({
      containerId: id,
      rootfs: [{ type: 'bind', source: path.join(this.directory, 'rootfs'), options: ['rbind', 'ro'] }],
      ...io,
    });
  }

  /** The process document of an exec. */
  execSpec(command: string, terminal = false): Any {
    const { process: init } = defaultSpec(this.namespace, 'exec');
    const spec = { ...init, args: ['sh', '-c', command], env: ['PATH=/bin'], terminal };
    return jsonAny(TypeUrl.RuntimeSpecProcess, JSON.stringify(spec));
  }

  /** Removes whatever there is of a container: a call about it may have been cut off. */
  async remove(id: string): Promise<void> {
    const { containers, tasks } = this.connection;
    if (await found(tasks.get({ containerId: id }))) {
      const exited = tasks.wait({ containerId: id }, { timeoutMs: 30_000 });
      exited.catch(() => undefined);
      await found(tasks.kill({ containerId: id, signal: 9, all: true }));
      await exited;
      await tasks.delete({ containerId: id });
    }
    await found(containers.delete({ id }));
  }

  /** Ends and removes an exec, if there is one. */
  async removeExec(containerId: string, execId: string): Promise<void> {
    const { tasks } = this.connection;
    if (!(await found(tasks.get({ containerId, execId })))) return;
    if (!(await found(tasks.kill({ containerId, execId, signal: 9 }), Code.FailedPrecondition))) {
      // Added and not started, or ended.
    } else await tasks.wait({ containerId, execId }, { timeoutMs: 30_000 });
    await tasks.deleteProcess({ containerId, execId });
  }

  /** Only these containers are there, for the daemon, on disk, in the kernel. */
  async survey(ids: readonly string[]): Promise<void> {
    const expected = [...ids].sort();
    const { containers, tasks } = this.connection;
    assert.deepEqual((await tasks.list({})).tasks.map(({ id }) => id).sort(), expected, 'tasks');
    assert.deepEqual((await containers.list({})).containers.map(({ id }) => id).sort(), expected, 'containers');
    const runtime = 'io.containerd.runtime.v2.task';
    const { state, root } = this.daemon;
    assert.deepEqual(names(state, runtime, this.namespace), expected, 'bundles');
    assert.deepEqual(names(root, runtime, this.namespace), expected, 'work directories');
    assert.deepEqual(names(this.directory, 'runc', this.namespace), expected, 'state of the OCI runtime');
    const mounted = expected.map((id) => path.join(state, runtime, this.namespace, id, 'rootfs'));
    assert.deepEqual(mountsBeneath(this.directory).sort(), mounted, 'mounts');
    for (const folder of cgroupFolders(this.cgroup)) {
      const groups = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
      for (const { name } of groups) assert.ok(expected.includes(name), `cgroup ${name} has no task`);
    }
    await eventually('one shim', () => (this.shims().length <= 1 ? true : undefined));
  }

  /** How many descriptors the daemon has open, by what they are; what it keeps for shims is among them. */
  keptDescriptors(): number {
    const folder = `/proc/${this.daemon.pid}/fd`;
    return readdirSync(folder).filter((fd) => {
      try {
        return /pidfd|\/dev\/(pts\/)?ptmx|outlive.*\/io\//.test(readlinkSync(path.join(folder, fd)));
      } catch {
        return false;
      }
    }).length;
  }

  /** The end of it all, after every container was removed. */
  async leavesNothing(): Promise<void> {
    await this.survey([]);
    await eventually('the daemon keeps no descriptors', () => (this.keptDescriptors() === 0 ? true : undefined)).catch(
      () => assert.fail(`the daemon still keeps ${this.keptDescriptors()} descriptors`),
    );
    this.connection.close();
    await this.daemon.stop();
    await nothingRuns(this.directory);
    assert.deepEqual(
      names(this.daemon.state, 's').filter((name) => !name.endsWith('.log')),
      [],
      'sockets of shims',
    );
    assert.deepEqual(names(this.directory, 'io'), [], 'FIFOs of the test itself');
    for (const folder of cgroupFolders(this.cgroup)) rmdirSync(folder);
  }

  async close(): Promise<void> {
    for (const reader of this.#readers) reader.close();
    this.connection?.close();
    await this.daemon.stop();
    await endProcesses(this.directory);
    removeCgroups(this.cgroup);
    await this.temp.remove();
  }

  /** The end of the daemon's log, without what every start says. */
  log(): string {
    const lines = this.daemon.log().split('\n');
    return lines
      .filter((line) => !line.includes('loading plugin'))
      .slice(-60)
      .join('\n');
  }

  /** The end of the shim's log. */
  shimLog(): string {
    const folder = path.join(this.daemon.state, 's');
    return names(folder)
      .filter((name) => name.endsWith('.log'))
      .map((name) => readFileSync(path.join(folder, name), 'utf8').slice(-4000))
      .join('\n');
  }
}

/** Whether a call does what it says; false if there is no such thing (or for `others`). */
export async function found(call: Promise<unknown>, ...others: Code[]): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if ([Code.NotFound, ...others].some((code) => hasCode(error, code))) return false;
    throw error;
  }
}

function names(...parts: string[]): string[] {
  const directory = path.join(...parts);
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}
