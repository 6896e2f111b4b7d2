import { setTimeout as sleep } from 'node:timers/promises';
import { fromTimestamp, internal } from '@gantry/api';
import { Controller } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import type { Platform } from '@gantry/oci';
import type { CallOptions, Client } from '@gantry/rpc';
import { BackendAway } from '../../core/remote/backend-away.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type {
  SandboxController,
  SandboxCreateOptions,
  SandboxExit,
  SandboxInstance,
  SandboxMetric,
  SandboxStatus,
} from '../../core/sandboxes/sandbox-controller.ts';
import type { SandboxInput } from '../../core/sandboxes/sandbox-store.ts';
import { toWireSandbox } from '../../core/sandboxes/wire-sandbox.ts';
import type { ProxyConnection } from './proxy-connection.ts';
import { toWireMounts } from './wire-mounts.ts';

const never = { seconds: 0n, nanos: 0 };
/** Milliseconds before a broken wait is taken up again, at first and at most. */
const firstRetry = 100;
const lastRetry = 8000;

/** A sandbox controller behind containerd.services.sandbox.v1.Controller. */
export class ProxySandboxController implements SandboxController {
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Controller>;
  readonly #sandboxer: string;

  /** @param name of the controller over there: that of the proxy plugin */
  constructor(connection: ProxyConnection, name: string) {
    this.#connection = connection;
    this.#client = connection.client(Controller);
    this.#sandboxer = name;
  }

  async create(
    ctx: RequestContext,
    sandbox: SandboxInput,
    { rootfs = [], options, netnsPath = '', annotations = {} }: SandboxCreateOptions = {},
  ): Promise<void> {
    const request = {
      ...this.#of(sandbox.id),
      rootfs: toWireMounts(rootfs),
      ...(options && { options }),
      netnsPath,
      annotations,
      sandbox: toWireSandbox(sandbox),
    };
    await this.#call(ctx, (client, callOptions) => client.create(request, callOptions));
  }

  async start(ctx: RequestContext, id: string): Promise<SandboxInstance> {
    const { sandboxId, pid, createdAt, labels, address, version, spec } = await this.#call(ctx, (client, options) =>
      client.start(this.#of(id), options),
    );
    const started = fromTimestamp(createdAt) ?? never;
    return { id: sandboxId || id, pid, createdAt: started, labels: { ...labels }, address, version, spec };
  }

  async platform(ctx: RequestContext, id: string): Promise<Platform> {
    const { platform } = await this.#call(ctx, (client, options) => client.platform(this.#of(id), options));
    if (!platform) throw internal(`the answer about the platform of sandbox ${id} is empty`);
    const { os, architecture, variant, osVersion } = platform;
    return { os, architecture, ...(variant && { variant }), ...(osVersion && { osVersion }) };
  }

  async stop(ctx: RequestContext, id: string, timeoutSecs = 0): Promise<void> {
    await this.#call(ctx, (client, options) => client.stop({ ...this.#of(id), timeoutSecs }, options));
  }

  /** Goes on waiting when the other process went away, until it is back or the caller gives up: sandboxes may outlive it. */
  async wait(ctx: RequestContext, id: string): Promise<SandboxExit> {
    for (let delay = firstRetry; ; delay = Math.min(lastRetry, delay * 2)) {
      try {
        const answer = await this.#call(ctx, (client, options) => client.wait(this.#of(id), options));
        return { exitStatus: answer.exitStatus, exitedAt: fromTimestamp(answer.exitedAt) ?? never };
      } catch (error) {
        if (!(error instanceof BackendAway) || !ctx.signal) throw error;
        await sleep(delay, undefined, { signal: ctx.signal, ref: false });
      }
    }
  }

  async status(ctx: RequestContext, id: string, verbose = false): Promise<SandboxStatus> {
    const { sandboxId, pid, state, info, createdAt, exitedAt, extra, address, version } = await this.#call(
      ctx,
      (client, options) => client.status({ ...this.#of(id), verbose }, options),
    );
    return {
      id: sandboxId || id,
      pid,
      state,
      info: { ...info },
      createdAt: fromTimestamp(createdAt),
      exitedAt: fromTimestamp(exitedAt),
      extra,
      address,
      version,
    };
  }

  async shutdown(ctx: RequestContext, id: string): Promise<void> {
    await this.#call(ctx, (client, options) => client.shutdown(this.#of(id), options));
  }

  async metrics(ctx: RequestContext, id: string): Promise<SandboxMetric> {
    const { metrics } = await this.#call(ctx, (client, options) => client.metrics(this.#of(id), options));
    if (!metrics) throw internal(`the answer about the metrics of sandbox ${id} is empty`);
    return { timestamp: fromTimestamp(metrics.timestamp), id: metrics.id, data: metrics.data };
  }

  async update(ctx: RequestContext, id: string, sandbox: SandboxInput, fields: string[]): Promise<void> {
    const request = { ...this.#of(id), sandbox: toWireSandbox(sandbox), fields };
    await this.#call(ctx, (client, options) => client.update(request, options));
  }

  #of(sandboxId: string): { sandboxId: string; sandboxer: string } {
    return { sandboxId, sandboxer: this.#sandboxer };
  }

  #call<T>(
    ctx: RequestContext,
    fn: (client: Client<typeof Controller>, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    return this.#connection.call(fn(this.#client, this.#connection.options(ctx)));
  }
}
