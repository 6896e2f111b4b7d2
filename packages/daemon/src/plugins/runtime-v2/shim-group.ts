import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Any } from '@bufbuild/protobuf/wkt';
import { isAny, packAny, StatusError, unavailable, unpackAny } from '@gantry/api';
import { OptionsSchema as RuncOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import type { Logger } from '../../core/log/logger.ts';
import { type Bootstrap, formatBootstrap } from './bootstrap.ts';
import { type Bundle, shimBundle, writeBundleFile } from './bundle.ts';
import { removeDeadGroup } from './dead-socket.ts';
import { listenerAt } from './listener.ts';
import type { RuntimePath } from './runtime-path.ts';
import { type ShimEnvironment, startShim } from './shim-command.ts';
import { ShimConnection } from './shim-connection.ts';
import { ShimLog } from './shim-log.ts';
import { StateBatch } from './state-batch.ts';

export interface ShimSettings {
  environment: ShimEnvironment;
  loadTimeoutMs: number;
  startTimeoutMs: number;
  /** How long a shim of ours without containers is kept for the next one. */
  idleMs: number;
  log: Logger;
}

/** What a group asks of the tasks that live in it. */
export interface GroupMember {
  readonly files: Bundle;
  /** The shim is gone and cannot be started again: the task ends. */
  lost(): Promise<void>;
  /** A new shim process answers: see whether the task is still there. @throws Unavailable if it is gone again */
  readopted(): Promise<void>;
}

/** Waits before each attempt to start a dead shim again, milliseconds. */
const restartDelays = [0, 100, 500, 1000, 2000];
/** A shim that dies more often than this within `deathWindowMs` is not started again at once: its containers can wait, the machine cannot. */
const deathsMax = 5;
const deathWindowMs = 10_000;
const crashLoopMs = 2000;

/**
 * One shim process and the tasks in it. When the connection breaks, a shim of our own is started again (it finds its
 * containers still running and adopts them); for anyone else's, every task in it is lost, as in containerd.
 */
export class ShimGroup {
  readonly key: string;
  readonly runtime: RuntimePath;
  readonly members = new Set<GroupMember>();
  /** The shim is a sandbox's: whoever made that ends it. */
  borrowed = false;
  /** Told of each member that was taken out, after the shim was let go if it was the last one. */
  onRemoved: (member: GroupMember) => void = () => undefined;
  #connection: Promise<ShimConnection> | undefined;
  readonly #states = new Map<string, StateBatch>();
  /** Of other people's shims: those of ours write a file. */
  readonly #logs = new Map<GroupMember, ShimLog>();
  #settings: ShimSettings;
  #options: Any | undefined;
  #idle: NodeJS.Timeout | undefined;
  #deaths: number[] = [];
  #closing = false;
  #onEmpty: (group: ShimGroup) => void;

  constructor(
    key: string,
    runtime: RuntimePath,
    options: Any | undefined,
    settings: ShimSettings,
    onEmpty: (group: ShimGroup) => void,
  ) {
    this.key = key;
    this.runtime = runtime;
    this.#options = options;
    this.#settings = settings;
    this.#onEmpty = onEmpty;
  }

  /** The key under which tasks share a shim of ours: namespace, binary, options, but for those that are of one task. */
  static keyFor(namespace: string, runtime: RuntimePath, given: Any | undefined): string {
    const options = given && withoutOwner(given);
    const hash = createHash('sha256');
    for (const part of [
      namespace,
      runtime.path,
      options?.typeUrl ?? '',
      Buffer.from(options?.value ?? '').toString('hex'),
    ]) {
      hash.update(part).update('\0');
    }
    return hash.digest('hex');
  }

  /** The open connection; waits while a shim is being started again. @throws Unavailable if there is none any more. */
  connection(): Promise<ShimConnection> {
    return this.#connection ?? Promise.reject(unavailable('shim is gone: ttrpc: closed'));
  }

  /** Questions for states of tasks in a namespace, put together. */
  states(namespace: string): StateBatch {
    let batch = this.#states.get(namespace);
    if (!batch) {
      batch = new StateBatch(namespace, () => this.connection());
      this.#states.set(namespace, batch);
    }
    return batch;
  }

  get alive(): boolean {
    return this.#connection !== undefined && !this.#closing;
  }

  /** Starts the shim by its `start` action for this bundle, unless it runs already. */
  start(bundle: Bundle): Promise<ShimConnection> {
    this.#connection ??= this.#launch(bundle).catch((error) => {
      this.#connection = undefined;
      throw error;
    });
    return this.#connection;
  }

  /** Connects to a shim that was there before. @throws Unavailable if nobody answers. */
  attach(bootstrap: Bootstrap): Promise<ShimConnection> {
    this.#connection ??= this.#connect(bootstrap).catch((error) => {
      this.#connection = undefined;
      throw error;
    });
    return this.#connection;
  }

  /**
   * Ends a shim of ours that is there and answers nothing: its containers live without it, and with its connection's end the next one is
   * started, which adopts them. Returns when it is gone.
   */
  async replace(mute: ShimConnection): Promise<void> {
    if (!mute.open) return;
    const { log } = this.#settings;
    const { address } = mute.bootstrap;
    try {
      const pid = await listenerAt(address);
      if (!mute.open) return;
      log.warn('shim does not answer and is replaced', { shim: address, pid, tasks: this.members.size });
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      // Others of its tasks were faster.
      if (mute.open) throw error;
    }
    await mute.closed;
  }

  add(member: GroupMember): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.members.add(member);
    if (this.runtime.own || this.#logs.has(member)) return;
    // In containerd's bundle nothing is made.
    if (member.files.taken && !existsSync(path.join(shimBundle(member.files), 'log'))) return;
    try {
      this.#logs.set(member, ShimLog.open(shimBundle(member.files), process.stderr));
    } catch (error) {
      this.#settings.log.warn('cannot read the log of a shim', { error, bundle: member.files.path });
    }
  }

  /** Takes a task out. The last one lets the shim go: at once if it is not ours, after a while if it is. */
  async remove(member: GroupMember): Promise<void> {
    if (!this.members.delete(member)) return;
    if (!this.runtime.own) {
      if (this.members.size === 0) await (this.borrowed ? this.detach() : this.shutdown(member.files));
      // Not before: a shim says something when it ends, and a pipe that nobody reads would hurt it.
      this.#logs.get(member)?.close();
      this.#logs.delete(member);
      this.onRemoved(member);
      return;
    }
    if (this.members.size > 0) return;
    this.#idle = setTimeout(() => void this.shutdown(member.files), this.#settings.idleMs);
    this.#idle.unref();
  }

  /** Asks the shim to end if nothing is in it, and forgets it. */
  async shutdown(bundle: { id: string; namespace: string }): Promise<void> {
    if (this.members.size > 0 || this.#closing) return;
    this.#closing = true;
    clearTimeout(this.#idle);
    this.#onEmpty(this);
    const connection = await this.#connection?.catch(() => undefined);
    if (!connection?.open) return;
    await connection.task
      .shutdown({ id: bundle.id, now: false }, { namespace: bundle.namespace, timeoutMs: 3000 })
      // The shim answers by hanging up as often as not.
      .catch((error) => this.#settings.log.debug('shim shutdown', { error, shim: connection.bootstrap.address }));
    await connection.close();
  }

  /** Nothing ever lived in it, or could be found: it is no longer listed. */
  forget(): void {
    if (this.members.size === 0 && !this.#connection) this.#end();
  }

  /** Lets go of the connection and leaves the shim alone: the daemon ends, the containers do not. */
  async detach(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#idle);
    for (const log of this.#logs.values()) log.close();
    this.#logs.clear();
    if (this.members.size === 0) this.#onEmpty(this);
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.close();
  }

  async #launch(bundle: Bundle): Promise<ShimConnection> {
    const { environment, startTimeoutMs } = this.#settings;
    let bootstrap: Bootstrap;
    try {
      bootstrap = await startShim(this.runtime.path, bundle, this.#options, environment, startTimeoutMs);
    } catch (error) {
      throw StatusError.wrap(error, 'start failed');
    }
    return this.#connect(bootstrap);
  }

  async #connect(bootstrap: Bootstrap): Promise<ShimConnection> {
    const connection = await ShimConnection.connect(bootstrap, this.#settings.loadTimeoutMs);
    void connection.closed.then(() => this.#broken(connection));
    return connection;
  }

  async #broken(connection: ShimConnection): Promise<void> {
    if (this.#closing) return;
    const { log } = this.#settings;
    this.#connection = undefined;
    if (this.members.size === 0) {
      this.#end();
      if (this.runtime.own) await removeDeadGroup(connection.bootstrap.address);
      return;
    }
    log.warn('shim disconnected', { shim: connection.bootstrap.address, tasks: this.members.size });
    const nowMs = performance.now();
    this.#deaths = [...this.#deaths.filter((at) => nowMs - at < deathWindowMs), nowMs];
    if (this.runtime.own) {
      // Calls wait for this meanwhile. Should the new one die too, its own end brings us here again.
      const reviving = this.#revive(this.#deaths.length > deathsMax ? crashLoopMs : 0);
      this.#connection = reviving;
      try {
        await this.#readopt(await reviving);
        return;
      } catch (error) {
        log.error('shim cannot be started again', { error, shim: connection.bootstrap.address });
      }
    }
    this.#end();
    await Promise.all([...this.members].map((member) => member.lost()));
  }

  #end(): void {
    this.#closing = true;
    this.#connection = undefined;
    clearTimeout(this.#idle);
    this.#onEmpty(this);
  }

  /** Starts the shim again, for whichever of its tasks it can be started. @throws what went wrong the last time */
  async #revive(delayMs: number): Promise<ShimConnection> {
    const { log } = this.#settings;
    let failure: unknown;
    await sleep(delayMs);
    for (const delay of restartDelays) {
      if (delay > 0) await sleep(delay);
      // A task that is being deleted may take its bundle away under the starting shim.
      for (const { files } of [...this.members]) {
        try {
          return await this.#launch(files);
        } catch (error) {
          failure = error;
          log.warn('shim was not started again yet', { error, id: files.id, namespace: files.namespace });
        }
      }
      if (this.members.size === 0) break;
    }
    throw failure ?? unavailable('shim is gone: ttrpc: closed');
  }

  /** Tells the tasks of their new shim. */
  async #readopt(connection: ShimConnection): Promise<void> {
    const { log } = this.#settings;
    const text = formatBootstrap(connection.bootstrap);
    log.info('shim started again', { shim: connection.bootstrap.address, tasks: this.members.size });
    await Promise.all(
      [...this.members].map(async (member) => {
        try {
          await writeBundleFile(member.files, 'bootstrap.json', text);
          await member.readopted();
        } catch (error) {
          log.warn('task of a shim that was started again', {
            error,
            id: member.files.id,
            namespace: member.files.namespace,
          });
        }
      }),
    );
  }
}

/** Options as they are for all user namespaces: without who owns a task's streams. */
function withoutOwner(options: Any): Any {
  if (!isAny(options, RuncOptionsSchema)) return options;
  const given = unpackAny(RuncOptionsSchema, options);
  if (given.ioUid === 0 && given.ioGid === 0) return options;
  return packAny(RuncOptionsSchema, { ...given, ioUid: 0, ioGid: 0 });
}
