import { alreadyExists, canceled, notFound, now, type Time } from '@gantry/api';
import { defaultPlatform } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';
import type {
  SandboxController,
  SandboxCreateOptions,
  SandboxExit,
  SandboxInstance,
  SandboxMetric,
  SandboxStatus,
} from './sandbox-controller.ts';
import type { SandboxInput } from './sandbox-store.ts';

interface Running {
  sandbox: SandboxInput;
  options: SandboxCreateOptions;
  createdAt: Time;
  started: boolean;
  exit: PromiseWithResolvers<SandboxExit>;
  exitedAt?: Time;
}

/** Sandboxes that are nothing but an entry in memory, for tests of what stands on controllers. */
export class MemoryController implements SandboxController {
  readonly sandboxes = new Map<string, Running>();
  /** What `stop` was told, by sandbox. */
  readonly timeouts: number[] = [];

  #get(ctx: RequestContext, id: string): Running {
    const found = this.sandboxes.get(`${ctx.namespace}/${id}`);
    if (!found) throw notFound(`sandbox "${id}" not found: not found`);
    return found;
  }

  async create(ctx: RequestContext, sandbox: SandboxInput, options: SandboxCreateOptions = {}): Promise<void> {
    const key = `${ctx.namespace}/${sandbox.id}`;
    if (this.sandboxes.has(key)) throw alreadyExists(`sandbox "${sandbox.id}" already exists: already exists`);
    const exit = Promise.withResolvers<SandboxExit>();
    this.sandboxes.set(key, { sandbox, options, createdAt: now(), started: false, exit });
  }

  async start(ctx: RequestContext, id: string): Promise<SandboxInstance> {
    const running = this.#get(ctx, id);
    running.started = true;
    const { labels, spec } = running.sandbox;
    return { id, pid: 77, createdAt: running.createdAt, labels, address: `unix:///run/${id}`, version: 3, spec };
  }

  async platform(ctx: RequestContext, id: string): Promise<ReturnType<typeof defaultPlatform>> {
    this.#get(ctx, id);
    return defaultPlatform();
  }

  async stop(ctx: RequestContext, id: string, timeoutSeconds = 0): Promise<void> {
    const running = this.#get(ctx, id);
    this.timeouts.push(timeoutSeconds);
    running.exitedAt ??= now();
    running.exit.resolve({ exitStatus: 3, exitedAt: running.exitedAt });
  }

  async wait(ctx: RequestContext, id: string): Promise<SandboxExit> {
    const { exit } = this.#get(ctx, id);
    const { signal } = ctx;
    if (!signal) return exit.promise;
    const gaveUp = new Promise<never>((_, reject) => {
      const give = () => reject(canceled('context canceled'));
      if (signal.aborted) give();
      else signal.addEventListener('abort', give, { once: true });
    });
    return Promise.race([exit.promise, gaveUp]);
  }

  async status(ctx: RequestContext, id: string, verbose = false): Promise<SandboxStatus> {
    const { started, exitedAt, createdAt, options, sandbox } = this.#get(ctx, id);
    const state = started && !exitedAt ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY';
    const info = verbose ? { netns: options.netnsPath ?? '', ...options.annotations } : {};
    const address = `unix:///run/${id}`;
    return { id, pid: 77, state, info, createdAt, exitedAt, extra: sandbox.extensions['extra'], address, version: 3 };
  }

  async shutdown(ctx: RequestContext, id: string): Promise<void> {
    await this.stop(ctx, id);
    this.sandboxes.delete(`${ctx.namespace}/${id}`);
  }

  async metrics(ctx: RequestContext, id: string): Promise<SandboxMetric> {
    return { timestamp: now(), id, data: this.#get(ctx, id).options.options };
  }

  async update(ctx: RequestContext, id: string, sandbox: SandboxInput, fields: string[]): Promise<void> {
    const running = this.#get(ctx, id);
    if (fields.includes('labels')) running.sandbox = { ...running.sandbox, labels: sandbox.labels };
  }
}
