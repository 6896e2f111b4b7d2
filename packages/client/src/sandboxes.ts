import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, type Time } from '@gantry/api';
import { Controller, Store } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import type { Sandbox as WireSandbox } from '@gantry/api/gen/types/sandbox_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import type { Mount } from './mount.ts';
import type { ExitStatus } from './process.ts';
import { momentFromWire } from './time.ts';

/** A sandbox record: a group of containers with a common surrounding. */
export interface Sandbox {
  readonly id: string;
  readonly runtime: { readonly name: string; readonly options: Any | undefined };
  readonly spec: Any | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly extensions: Readonly<Record<string, Any>>;
  /** The controller that runs it. */
  readonly sandboxer: string;
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

export interface NewSandbox {
  id: string;
  runtime?: { name: string; options?: Any };
  spec?: Any;
  labels?: Record<string, string>;
  extensions?: Record<string, Any>;
  sandboxer?: string;
}

export interface SandboxStatus {
  readonly id: string;
  readonly pid: number;
  readonly state: string;
  readonly info: Readonly<Record<string, string>>;
  readonly createdAt: Time | undefined;
  readonly exitedAt: Time | undefined;
  readonly address: string;
  readonly version: number;
}

/** Sandbox records, and what runs of them. Daemons from containerd 1.7 on. */
export class Sandboxes {
  readonly #store: Client<typeof Store>;
  readonly #controller: Client<typeof Controller>;

  constructor(transport: Transport) {
    this.#store = createClient(Store, transport);
    this.#controller = createClient(Controller, transport);
  }

  /** @throws StatusError NotFound */
  async get(id: string, options?: CallOptions): Promise<Sandbox> {
    return fromWire((await this.#store.get({ sandboxId: id }, options)).sandbox);
  }

  async list(filters: string[] = [], options?: CallOptions): Promise<Sandbox[]> {
    return (await this.#store.list({ filters }, options)).list.map(fromWire);
  }

  /** Writes the record; `start` runs it. @throws StatusError AlreadyExists */
  async create(sandbox: NewSandbox, options?: CallOptions): Promise<Sandbox> {
    const { id, ...rest } = sandbox;
    return fromWire((await this.#store.create({ sandbox: { sandboxId: id, ...rest } }, options)).sandbox);
  }

  /** Changes the fields at `paths` (`labels.<key>`, `extensions.<key>`, `spec`, `runtime`). @throws StatusError NotFound */
  async update(sandbox: NewSandbox, paths: string[] = [], options?: CallOptions): Promise<Sandbox> {
    const { id, ...rest } = sandbox;
    return fromWire(
      (await this.#store.update({ sandbox: { sandboxId: id, ...rest }, fields: paths }, options)).sandbox,
    );
  }

  /** Deletes the record. @throws StatusError NotFound */
  async delete(id: string, options?: CallOptions): Promise<void> {
    await this.#store.delete({ sandboxId: id }, options);
  }

  /** Brings up what a record describes. @returns its process and the address of its task API */
  async start(
    sandbox: NewSandbox,
    settings: { rootfs?: Mount[]; options?: Any; netnsPath?: string; annotations?: Record<string, string> } = {},
    options?: CallOptions,
  ): Promise<{ pid: number; address: string; version: number }> {
    const { id, ...rest } = sandbox;
    const names = { sandboxId: id, sandboxer: sandbox.sandboxer ?? '' };
    await this.#controller.create({ ...names, ...settings, sandbox: { sandboxId: id, ...rest } }, options);
    const { pid, address, version } = await this.#controller.start(names, options);
    return { pid, address, version };
  }

  async stop(
    id: string,
    settings: { timeoutSeconds?: number; sandboxer?: string } = {},
    options?: CallOptions,
  ): Promise<void> {
    const { timeoutSeconds: timeoutSecs = 0, sandboxer = '' } = settings;
    await this.#controller.stop({ sandboxId: id, timeoutSecs, sandboxer }, options);
  }

  async wait(id: string, settings: { sandboxer?: string } = {}, options?: CallOptions): Promise<ExitStatus> {
    const { exitStatus, exitedAt } = await this.#controller.wait({ sandboxId: id, ...settings }, options);
    return { code: exitStatus, exitedAt: momentFromWire(exitedAt) };
  }

  async status(
    id: string,
    settings: { verbose?: boolean; sandboxer?: string } = {},
    options?: CallOptions,
  ): Promise<SandboxStatus> {
    const wire = await this.#controller.status({ sandboxId: id, ...settings }, options);
    return {
      id: wire.sandboxId,
      pid: wire.pid,
      state: wire.state,
      info: wire.info,
      createdAt: momentFromWire(wire.createdAt),
      exitedAt: momentFromWire(wire.exitedAt),
      address: wire.address,
      version: wire.version,
    };
  }

  /** Removes what runs; the record stays. */
  async shutdown(id: string, settings: { sandboxer?: string } = {}, options?: CallOptions): Promise<void> {
    await this.#controller.shutdown({ sandboxId: id, ...settings }, options);
  }
}

function fromWire(wire: WireSandbox | undefined): Sandbox {
  if (!wire) throw internal('the server sent no sandbox');
  return {
    id: wire.sandboxId,
    runtime: { name: wire.runtime?.name ?? '', options: wire.runtime?.options },
    spec: wire.spec,
    labels: wire.labels,
    extensions: wire.extensions,
    sandboxer: wire.sandboxer,
    createdAt: momentFromWire(wire.createdAt),
    updatedAt: momentFromWire(wire.updatedAt),
  };
}
