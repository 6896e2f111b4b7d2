import {
  Code,
  deadlineExceeded,
  failedPrecondition,
  hasCode,
  invalidArgument,
  StatusError,
  unavailable,
} from '@gantry/api';
import {
  type Container,
  type ContainerEviction,
  type ContainerUpdate,
  Event,
  Plugin as PluginService,
  type PodSandbox,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { createClient } from '@gantry/rpc';
import { nriVersion } from '../connection-numbers.ts';
import { checkIdentity, type PluginIdentity } from '../plugin-name.ts';
import type { NriObserver } from './nri-observer.ts';
import { allEvents, hasEvent, type Notification, notifications, type PluginClient } from './plugin-calls.ts';
import type { PluginWire } from './plugin-wire.ts';
import { synchronizeInChunks } from './synchronize.ts';

export interface LinkOptions {
  runtimeName: string;
  runtimeVersion: string;
  /** Milliseconds. */
  registrationTimeout: number;
  requestTimeout: number;
  /** A plugin's request out of turn; answers those updates that failed. */
  onUpdate: (
    updates: ContainerUpdate[],
    evictions: ContainerEviction[],
    plugin: PluginLink,
  ) => Promise<ContainerUpdate[]>;
  onClose: (plugin: PluginLink) => void;
  /** It is one from before 0.12. */
  onOldInterface: (plugin: PluginLink) => void;
  warn: (message: string, fields: Record<string, unknown>) => void;
  observer?: NriObserver | undefined;
}

/** One connected plugin. Nothing that it does or leaves takes longer than the time-outs; one that hangs or breaks the protocol is cut off. */
export class PluginLink {
  readonly #wire: PluginWire;
  readonly #options: LinkOptions;
  readonly #client: PluginClient;
  readonly #registered: Promise<void>;
  readonly #before = new Set<Notification>();
  #identity: PluginIdentity | undefined;
  #events = 0;
  #closed = false;

  /** @param identity of one that was started by the runtime; others say who they are */
  constructor(wire: PluginWire, options: LinkOptions, identity?: PluginIdentity) {
    this.#options = options;
    this.#identity = identity;
    this.#wire = wire;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#registered = promise;
    promise.catch(() => undefined);
    let registered = !wire.registers;
    if (registered) resolve();
    this.#client = createClient(PluginService, wire.transport);
    wire.onClose(() => {
      this.#closed = true;
      wire.close();
      reject(unavailable('failed to register plugin, connection closed'));
      options.onClose(this);
    });
    wire.serve({
      registerPlugin: async ({ pluginName, pluginIdx }) => {
        // One that has taken its place keeps its name: others are held to what it has set under it.
        if (registered) throw failedPrecondition(`plugin ${this.name} is registered already`);
        try {
          if (!identity) {
            const told = { name: pluginName, index: pluginIdx };
            checkIdentity(told);
            this.#identity = told;
          }
          registered = true;
          resolve();
          return {};
        } catch (reason) {
          // It is cut off for it, and shall hear why before.
          setTimeout(reject, 100, reason);
          throw reason;
        }
      },
      updateContainers: async ({ update, evict }) => ({ failed: await options.onUpdate(update, evict, this) }),
    });
  }

  /** `10-logger`. */
  get name(): string {
    return `${this.index}-${this.baseName}`;
  }

  get index(): string {
    return this.#identity?.index ?? '??';
  }

  get baseName(): string {
    return this.#identity?.name ?? 'plugin';
  }

  get closed(): boolean {
    return this.#closed;
  }

  wants(event: Event): boolean {
    return !this.#closed && hasEvent(this.#events, event);
  }

  /** Waits until it has registered, and configures it. @param configFor the text of its configuration */
  async start(configFor: (identity: PluginIdentity) => Promise<string>): Promise<void> {
    try {
      const { registrationTimeout } = this.#options;
      await within(registrationTimeout, this.#registered, 'plugin registration timed out');
      await this.#configure(await configFor(this.#identity!));
    } catch (reason) {
      this.close();
      throw reason;
    }
  }

  async #configure(config: string): Promise<void> {
    const { runtimeName, runtimeVersion, registrationTimeout, requestTimeout } = this.#options;
    const { events } = await this.#client.configure(
      {
        config,
        runtimeName,
        runtimeVersion,
        registrationTimeout: BigInt(registrationTimeout),
        requestTimeout: BigInt(requestTimeout),
        NRIVersion: nriVersion,
      },
      { timeoutMs: requestTimeout },
    );
    const unknown = events & ~allEvents;
    if (unknown !== 0) throw invalidArgument(`invalid plugin events: 0x${(unknown >>> 0).toString(16)}`);
    this.#events = events === 0 ? allEvents : events;
  }

  async synchronize(pods: readonly PodSandbox[], containers: readonly Container[]): Promise<ContainerUpdate[]> {
    const timeoutMs = this.#options.requestTimeout;
    try {
      return await synchronizeInChunks(
        pods,
        containers,
        (request) => this.#client.synchronize(request, { timeoutMs }),
        this.#wire.largestRequest,
      );
    } catch (reason) {
      this.close();
      throw reason;
    }
  }

  /** Asks it, if it wants that event. Answers nothing for one that is cut off for not answering. @throws what the plugin objects to */
  async ask<T>(
    event: Event,
    call: (client: PluginClient, options: { timeoutMs: number }) => Promise<T>,
  ): Promise<T | undefined> {
    if (!this.wants(event)) return undefined;
    try {
      const options = { timeoutMs: this.#options.requestTimeout };
      return await this.#observed(operationOf(event), () => call(this.#client, options));
    } catch (reason) {
      if (this.#isOver(reason)) {
        this.#options.warn('NRI plugin is cut off: it did not answer', {
          plugin: this.name,
          event: Event[event],
          reason,
        });
        this.close();
        return undefined;
      }
      throw StatusError.wrap(reason, `NRI plugin ${JSON.stringify(this.name)}`);
    }
  }

  /** Tells it. Plugins from before 0.12 know one call for all of these events. */
  async notify(name: Notification, pod: PodSandbox, container?: Container): Promise<void> {
    const event = notifications[name];
    await this.ask(event, async (client, options) => {
      const message = { pod, ...(container && { container }) };
      if (!this.#before.has(name)) {
        try {
          await client[name](message, options);
          return;
        } catch (reason) {
          if (!hasCode(reason, Code.Unimplemented)) throw reason;
          this.#before.add(name);
          this.#options.onOldInterface(this);
        }
      }
      await client.stateChange({ event, ...message }, options);
    });
  }

  /** Asks it to end, and does not wait long for that. */
  async shutdown(): Promise<void> {
    if (!this.#closed) await this.#client.shutdown({}, { timeoutMs: 500 }).catch(() => undefined);
    this.close();
  }

  close(): void {
    this.#wire.close();
  }

  async #observed<T>(operation: string, work: () => Promise<T>): Promise<T> {
    const { observer } = this.#options;
    if (!observer) return work();
    const begin = performance.now();
    const told = { plugin: this.name, operation };
    const seconds = (): number => (performance.now() - begin) / 1000;
    try {
      const answer = await work();
      const { update = [], evict = [] } = (answer ?? {}) as { update?: unknown[]; evict?: unknown[] };
      observer.called({ ...told, seconds: seconds(), updates: update.length, evictions: evict.length });
      return answer;
    } catch (error) {
      observer.called({ ...told, seconds: seconds(), error, updates: 0, evictions: 0 });
      throw error;
    }
  }

  #isOver(reason: unknown): boolean {
    return this.#closed || hasCode(reason, Code.DeadlineExceeded) || hasCode(reason, Code.Unavailable);
  }
}

/** `CREATE_CONTAINER` as the call is named: `CreateContainer`. */
function operationOf(event: Event): string {
  return Event[event].toLowerCase().replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

async function within<T>(milliseconds: number, work: Promise<T>, message: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(deadlineExceeded(message)), milliseconds);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
