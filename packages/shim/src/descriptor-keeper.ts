import type { DescriptorAnswer, DescriptorKind, DescriptorRequest, KeptProcess, Time } from '@gantry/api';
import { close, PacketSocket } from '@gantry/sys';
import { log } from './log.ts';

/** What a daemon had kept for a process; the descriptors belong to whoever took them. */
export interface KeptDescriptors {
  fds: Map<DescriptorKind, number>;
  /** When the process ended, if the daemon saw it. */
  exitedAt?: Time;
}

/** How long a daemon may take to give back what it keeps for one container. */
const takeTimeoutMs = 5000;
const firstRetryMs = 50;
const lastRetryMs = 2000;

interface Taking {
  kept: Map<string, KeptDescriptors>;
  done(): void;
}

/**
 * Has the daemon keep the descriptors that would end with this process: one packet each time, never waited for. A daemon that was
 * started again is given everything again. Without an address nothing is kept anywhere.
 */
export class DescriptorKeeper {
  readonly #address: string;
  readonly #onConnect: () => void;
  readonly #taking = new Map<string, Taking>();
  #socket: PacketSocket | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;

  /** @param onConnect a daemon that knows of nothing yet is there: to `keep` everything */
  constructor(address: string, onConnect: () => void) {
    this.#address = address;
    this.#onConnect = onConnect;
  }

  /** Connects, now and whenever the connection is lost. Called also when something shows that a daemon is there. */
  connect(): void {
    if (this.#address === '' || this.#socket?.open) return;
    clearTimeout(this.#retry);
    try {
      this.#socket = PacketSocket.connect(this.#address, {
        packet: (data, fds) => this.#answer(data, fds),
        gone: () => this.#gone(),
      });
      this.#retryMs = firstRetryMs;
      this.#onConnect();
    } catch (error) {
      log.debug('no daemon keeps descriptors now', { error });
      this.#again();
    }
  }

  /** Replaces what is kept for a process. The descriptors stay the caller's. */
  keep(process: KeptProcess, descriptors: ReadonlyMap<DescriptorKind, number>): void {
    const { namespace, id, exec } = process;
    this.#send({ keep: { namespace, id, exec, kinds: [...descriptors.keys()] } }, [...descriptors.values()]);
  }

  /** Without `exec`: everything of the container. */
  drop(namespace: string, id: string, exec?: string): void {
    this.#send({ drop: { namespace, id, ...(exec === undefined ? {} : { exec }) } });
  }

  /** What a daemon keeps for a container, by exec. Nothing if there is no such daemon. */
  async take(namespace: string, id: string): Promise<Map<string, KeptDescriptors>> {
    const kept = new Map<string, KeptDescriptors>();
    if (!this.#socket?.open) return kept;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#taking.set(`${namespace}/${id}`, { kept, done: resolve });
    const timer = setTimeout(resolve, takeTimeoutMs);
    this.#send({ take: { namespace, id } });
    await promise;
    clearTimeout(timer);
    this.#taking.delete(`${namespace}/${id}`);
    return kept;
  }

  #send(request: DescriptorRequest, fds: readonly number[] = []): void {
    if (!this.#socket?.open) return;
    try {
      this.#socket.send(Buffer.from(JSON.stringify(request)), fds);
    } catch (error) {
      log.warn('descriptors could not be handed over', { error });
    }
  }

  #answer(data: Buffer, fds: number[]): void {
    try {
      const { kept, taken } = JSON.parse(data.toString('utf8')) as DescriptorAnswer;
      if (taken) this.#taking.get(`${taken.namespace}/${taken.id}`)?.done();
      if (!kept) return;
      const taking = this.#taking.get(`${kept.namespace}/${kept.id}`);
      if (!taking || kept.kinds.length !== fds.length) return;
      const { exitedAt } = kept;
      taking.kept.set(kept.exec, {
        fds: new Map(kept.kinds.map((kind, index) => [kind, fds[index]!])),
        ...(exitedAt && { exitedAt: { seconds: BigInt(exitedAt.seconds), nanos: exitedAt.nanos } }),
      });
      fds = [];
    } catch (error) {
      log.warn('the daemon gives back nonsense', { error });
    } finally {
      for (const fd of fds) close(fd);
    }
  }

  #gone(): void {
    this.#socket = undefined;
    for (const taking of this.#taking.values()) taking.done();
    this.#again();
  }

  #again(): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), this.#retryMs);
    this.#retry.unref();
    this.#retryMs = Math.min(2 * this.#retryMs, lastRetryMs);
  }
}
