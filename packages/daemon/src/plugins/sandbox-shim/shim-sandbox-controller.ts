import { alreadyExists, Code, fromTimestamp, hasCode, internal, notFound, now, StatusError } from '@gantry/api';
import type { StartSandboxResponse } from '@gantry/api/gen/runtime/sandbox/v1/sandbox_pb.js';
import type { Platform } from '@gantry/oci';
import type { Logger } from '../../core/log/logger.ts';
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
import { validateIdentifier } from '../../core/validation/identifier.ts';
import { formatBootstrap } from '../runtime-v2/bootstrap.ts';
import {
  type Bundle,
  type BundleRoots,
  createBundle,
  deleteBundle,
  readBundleFile,
  writeBundleFile,
} from '../runtime-v2/bundle.ts';
import { readGroupFile, writeGroupFile } from '../runtime-v2/group-file.ts';
import { askLeft, attachLeft, loadBundles, removeLeftSocket, unlessLost } from '../runtime-v2/left-bundles.ts';
import type { RuntimePath } from '../runtime-v2/runtime-path.ts';
import { deleteByShim } from '../runtime-v2/shim-command.ts';
import type { ShimConnection } from '../runtime-v2/shim-connection.ts';
import type { ShimGroups } from '../runtime-v2/shim-groups.ts';
import { type SandboxCall, ShimSandbox } from './shim-sandbox.ts';

export interface ShimSandboxSettings {
  roots: BundleRoots;
  groups: ShimGroups;
  /** Milliseconds a dead shim's `delete` action may take. */
  cleanupTimeoutMs: number;
  log: Logger;
}

const unknownExit = 255;
/** How long a shim may take to clear up after a sandbox that could not be made. */
const giveUpMs = 5000;

/**
 * Sandboxes that a shim runs: each has a bundle, and its shim's Sandbox API is spoken to for it. Tasks of containers that name
 * the sandbox are created in the same shim.
 */
export class ShimSandboxController implements SandboxController {
  readonly #settings: ShimSandboxSettings;
  readonly #groups: ShimGroups;
  readonly #sandboxes = new Map<string, ShimSandbox>();

  constructor(settings: ShimSandboxSettings) {
    this.#settings = settings;
    this.#groups = settings.groups;
  }

  async create(ctx: RequestContext, sandbox: SandboxInput, options: SandboxCreateOptions = {}): Promise<void> {
    const { id } = sandbox;
    const { namespace } = ctx;
    validateIdentifier(id);
    if (this.#sandboxes.has(key(namespace, id))) throw alreadyExists(`sandbox ${id} already running: already exists`);
    const started = `failed to start new shim for sandbox ${id}`;
    const runtime = await this.#groups.resolve(sandbox.runtime.name).catch((error) => {
      throw StatusError.wrap(error, started);
    });
    const bundle = await createBundle(this.#settings.roots, namespace, id, sandbox.spec?.value);
    const file = {
      shared: runtime.own && this.#groups.share,
      borrowed: false,
      sandbox: id,
      options: sandbox.runtime.options,
    };
    const made = new ShimSandbox(bundle, this.#groups.of(bundle, runtime, file), (lost) => this.#cleanUpLost(lost));
    this.#sandboxes.set(key(namespace, id), made);
    made.group.add(made);
    try {
      await writeBundleFile(bundle, 'shim-binary-path', runtime.path);
      await writeGroupFile(bundle, file);
      await this.#createInShim(made, options).catch((error) => {
        throw StatusError.wrap(error, made.group.alive ? `failed to create sandbox ${id}` : started);
      });
      this.#groups.addSandbox(namespace, id, { group: made.group, file });
      made.settle();
    } catch (error) {
      await this.#discard(made);
      throw error;
    }
  }

  /** A shim of ours that ended just now, or was killed over it, is started once more. */
  async #createInShim(made: ShimSandbox, options: SandboxCreateOptions): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const connection = await made.group.start(made.files);
      await writeBundleFile(made.files, 'bootstrap.json', formatBootstrap(connection.bootstrap));
      const { rootfs = [], options: forShim, netnsPath = '', annotations = {} } = options;
      try {
        await made.call((client, callOptions) =>
          client.createSandbox(
            {
              sandboxId: made.id,
              bundlePath: made.files.path,
              rootfs: rootfs.map(({ target = '', ...mount }) => ({ ...mount, target })),
              ...(forShim && { options: forShim }),
              netnsPath,
              annotations,
            },
            callOptions,
          ),
        );
        return;
      } catch (error) {
        // It had been made when its shim died, and the next one has taken it over.
        if (attempt > 0 && hasCode(error, Code.AlreadyExists)) return;
        if (attempt > 0 || connection.open || !made.group.runtime.own) throw error;
      }
    }
  }

  async start(ctx: RequestContext, id: string): Promise<SandboxInstance> {
    const sandbox = this.#get(ctx, id);
    try {
      const { pid, createdAt, spec } = await this.#startInShim(sandbox);
      const connection = await sandbox.group.connection();
      return { id, pid, createdAt: fromTimestamp(createdAt) ?? now(), labels: {}, ...endpoint(connection), spec };
    } catch (error) {
      sandbox.unsettle();
      await this.#discard(sandbox);
      throw StatusError.wrap(error, `failed to start sandbox ${id}`);
    }
  }

  /** If a shim of ours is killed over it, the next one is asked what has come of it, and to do it if it was not done. */
  async #startInShim(
    sandbox: ShimSandbox,
  ): Promise<Pick<StartSandboxResponse, 'pid'> & Partial<Pick<StartSandboxResponse, 'createdAt' | 'spec'>>> {
    const request = { sandboxId: sandbox.id };
    const connection = await sandbox.group.connection();
    try {
      return await sandbox.call((client, options) => client.startSandbox(request, options));
    } catch (error) {
      if (connection.open || !sandbox.group.runtime.own) throw error;
      await connection.closed;
    }
    const { state, pid, createdAt } = await sandbox.ask((client, options) => client.sandboxStatus(request, options));
    if (state === 'SANDBOX_READY') return { pid, ...(createdAt && { createdAt }) };
    return sandbox.call((client, options) => client.startSandbox(request, options));
  }

  async platform(ctx: RequestContext, id: string): Promise<Platform> {
    const { platform } = await this.#ask(ctx, id, 'failed to get sandbox platform', (client, options) =>
      client.platform({ sandboxId: id }, options),
    );
    if (!platform) throw internal(`the shim of sandbox ${id} says nothing of its platform`);
    const { os, architecture, variant, osVersion } = platform;
    return { os, architecture, ...(variant && { variant }), ...(osVersion && { osVersion }) };
  }

  async stop(ctx: RequestContext, id: string, timeoutSecs = 0): Promise<void> {
    const sandbox = this.#sandboxes.get(key(ctx.namespace, id));
    if (!sandbox) return;
    try {
      await sandbox.ask((client, options) => client.stopSandbox({ sandboxId: id, timeoutSecs }, options));
    } catch (error) {
      if (!hasCode(error, Code.NotFound) && !hasCode(error, Code.Unavailable))
        throw StatusError.wrap(error, 'failed to stop sandbox');
    }
  }

  async wait(ctx: RequestContext, id: string): Promise<SandboxExit> {
    try {
      return await this.#get(ctx, id).wait(ctx.signal);
    } catch (error) {
      throw StatusError.wrap(error, `failed to wait sandbox ${id}`);
    }
  }

  async status(ctx: RequestContext, id: string, verbose = false): Promise<SandboxStatus> {
    const sandbox = this.#sandboxes.get(key(ctx.namespace, id));
    // As containerd: clients that clear up after a reboot ask how it is before they remove it.
    if (!sandbox) return { id, pid: 0, state: '', info: {}, exitedAt: now(), address: '', version: 0 };
    const status = await this.#ask(ctx, id, `failed to query sandbox ${id} status`, (client, options) =>
      client.sandboxStatus({ sandboxId: id, verbose }, options),
    );
    return {
      id: status.sandboxId || id,
      pid: status.pid,
      state: status.state,
      info: { ...status.info },
      createdAt: fromTimestamp(status.createdAt),
      exitedAt: fromTimestamp(status.exitedAt),
      extra: status.extra,
      ...endpoint(await sandbox.group.connection()),
    };
  }

  async shutdown(ctx: RequestContext, id: string): Promise<void> {
    const sandbox = this.#get(ctx, id);
    sandbox.unsettle();
    try {
      await sandbox.ask((client, options) => client.shutdownSandbox({ sandboxId: id }, options));
    } catch (error) {
      // It has gone with its shim, or was gone already.
      if (sandbox.group.alive && !hasCode(error, Code.NotFound)) {
        sandbox.settle();
        throw StatusError.wrap(error, 'failed to shutdown sandbox');
      }
    }
    await this.#forget(sandbox);
    sandbox.tellEnd({ exitStatus: unknownExit, exitedAt: now() });
  }

  async metrics(ctx: RequestContext, id: string): Promise<SandboxMetric> {
    const { metrics } = await this.#ask(ctx, id, `failed to get metrics of sandbox ${id}`, (client, options) =>
      client.sandboxMetrics({ sandboxId: id }, options),
    );
    return { timestamp: fromTimestamp(metrics?.timestamp), id: metrics?.id || id, data: metrics?.data };
  }

  /** Nothing of a record concerns a shim that runs already; the Shim API has no call for it. */
  async update(ctx: RequestContext, id: string): Promise<void> {
    this.#get(ctx, id);
  }

  #get(ctx: RequestContext, id: string): ShimSandbox {
    const sandbox = this.#sandboxes.get(key(ctx.namespace, id));
    if (!sandbox) throw notFound(`unable to find sandbox "${id}": not found`);
    return sandbox;
  }

  async #ask<T>(ctx: RequestContext, id: string, what: string, call: SandboxCall<T>): Promise<T> {
    const sandbox = this.#get(ctx, id);
    try {
      return await sandbox.ask(call, ctx.signal);
    } catch (error) {
      throw StatusError.wrap(error, what);
    }
  }

  /** Has the shim clear up what could not be made, and leaves nothing of it. */
  async #discard(sandbox: ShimSandbox): Promise<void> {
    const { log } = this.#settings;
    if (sandbox.group.alive) {
      const cleared = sandbox.call((client, options) =>
        client.shutdownSandbox({ sandboxId: sandbox.id }, { ...options, timeoutMs: giveUpMs }),
      );
      await cleared.catch((error) => {
        if (!hasCode(error, Code.NotFound))
          log.warn('sandbox that could not be made cannot be shut down', { error, id: sandbox.id });
      });
    }
    await this.#forget(sandbox);
  }

  /** Nothing of the sandbox runs any more: its shim may go, what is on disk goes. */
  async #forget(sandbox: ShimSandbox): Promise<void> {
    const { namespace, id, group, files } = sandbox;
    this.#groups.removeSandbox(namespace, id);
    await group.remove(sandbox);
    // Other people's shims are called for each sandbox once more, as containerd does.
    if (!group.runtime.own) await this.#deleteByShim(sandbox);
    await deleteBundle(files);
    this.#sandboxes.delete(key(namespace, id));
  }

  async #deleteByShim({ group, files }: ShimSandbox): Promise<SandboxExit | undefined> {
    const { cleanupTimeoutMs, log } = this.#settings;
    try {
      const { exitStatus, exitedAt } = await deleteByShim(
        group.runtime.path,
        files,
        this.#groups.shims.environment,
        cleanupTimeoutMs,
      );
      return { exitStatus, exitedAt: exitedAt ?? now() };
    } catch (error) {
      log.warn('failed to clean up after shim disconnected', { error, sandbox: files.id, namespace: files.namespace });
      return undefined;
    }
  }

  /** The shim of a sandbox is gone for good. */
  async #cleanUpLost(sandbox: ShimSandbox): Promise<void> {
    const { log } = this.#settings;
    sandbox.unsettle();
    log.warn('cleaning up after shim disconnected', { sandbox: sandbox.id, namespace: sandbox.namespace });
    const exit = await this.#deleteByShim(sandbox);
    if (!sandbox.group.runtime.own) await removeLeftSocket(sandbox.files, log);
    this.#groups.removeSandbox(sandbox.namespace, sandbox.id);
    await sandbox.group.remove(sandbox);
    await deleteBundle(sandbox.files).catch((error) =>
      log.error('bundle cannot be removed', { error, sandbox: sandbox.id }),
    );
    this.#sandboxes.delete(key(sandbox.namespace, sandbox.id));
    sandbox.tellEnd(exit ?? { exitStatus: unknownExit, exitedAt: now() });
  }

  /** Finds the sandboxes that outlived the last daemon. Runs before the daemon serves. */
  load(): Promise<void> {
    return loadBundles(this.#settings, (bundle, runtime) => this.#loadBundle(bundle, runtime));
  }

  async #loadBundle(bundle: Bundle, runtime: RuntimePath): Promise<void> {
    const file = await readGroupFile(bundle);
    const sandbox = new ShimSandbox(bundle, this.#groups.of(bundle, runtime, file), (lost) => this.#cleanUpLost(lost));
    this.#sandboxes.set(key(bundle.namespace, bundle.id), sandbox);
    sandbox.group.add(sandbox);
    const reached = this.#reach(sandbox, await readBundleFile(bundle, 'bootstrap.json')).then(() => true);
    const found = await unlessLost(this.#settings, 'sandbox', { bundle, own: runtime.own }, reached, () =>
      this.#cleanUpLost(sandbox),
    );
    if (!found) return;
    this.#groups.addSandbox(bundle.namespace, bundle.id, { group: sandbox.group, file });
    sandbox.settle();
  }

  /** Connects to the shim that a sandbox was left with and asks whether the sandbox is there. */
  async #reach(sandbox: ShimSandbox, bootstrap: string | undefined): Promise<void> {
    if (bootstrap === undefined) throw notFound(`sandbox ${sandbox.id} was not made yet`);
    const connection = await attachLeft(sandbox.group, sandbox.files, bootstrap);
    await askLeft(sandbox.group, connection, this.#groups.shims.loadTimeoutMs, (timeoutMs) =>
      sandbox.ask((client, options) => client.sandboxStatus({ sandboxId: sandbox.id }, { ...options, timeoutMs })),
    );
  }
}

/** Where a sandbox's tasks are created, as containerd writes it: `ttrpc+unix:///path`. */
function endpoint({ bootstrap }: ShimConnection): { address: string; version: number } {
  return { address: `${bootstrap.protocol}+${bootstrap.address}`, version: bootstrap.version };
}

function key(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}
