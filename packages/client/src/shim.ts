import { jsonAny, TypeUrl } from '@gantry/api';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { type StateResponse, Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { type CallOptions, type Client, createClient, type TtrpcTransport, ttrpcTransport } from '@gantry/rpc';
import {
  type CopyFromContainerOptions,
  type CopyToContainerOptions,
  copyFromContainer,
  copyToContainer,
} from './container-files.ts';
import type { StdioPaths } from './fifos.ts';
import type { DoTransfer } from './transfer-layers.ts';

export interface ShimOptions {
  /** Default `default`. A shim of containers of one namespace may not care. */
  namespace?: string;
  /** Of the task API: 2, or 3 (default). */
  version?: 2 | 3;
}

/**
 * A shim, spoken to by ttrpc without the daemon: to look at one, and to help where a daemon is gone. What is done here the daemon does not
 * hear of but by the shim's events.
 */
export class Shim implements AsyncDisposable {
  readonly #transport: TtrpcTransport;
  readonly #task: Client<typeof TaskV3>;

  private constructor(transport: TtrpcTransport, version: 2 | 3) {
    this.#transport = transport;
    // The versions differ in the name of the service only.
    this.#task = createClient(version === 2 ? (TaskV2 as unknown as typeof TaskV3) : TaskV3, transport);
  }

  /** @param address a path, `unix:///path`, or an abstract name with a leading NUL or `@`. @throws StatusError Unavailable */
  static async connect(address: string, options: ShimOptions = {}): Promise<Shim> {
    const { namespace = 'default', version = 3 } = options;
    const transport = ttrpcTransport(address, { namespace });
    try {
      await transport.ready();
    } catch (reason) {
      await transport.close();
      throw reason;
    }
    return new Shim(transport, version);
  }

  /** @throws StatusError NotFound */
  state(id: string, options?: CallOptions): Promise<StateResponse> {
    return this.#task.state({ id }, options);
  }

  /** Starts the container's process, or another one added by `exec`. @returns its pid */
  async start(id: string, execId = '', options?: CallOptions): Promise<number> {
    return (await this.#task.start({ id, execId }, options)).pid;
  }

  /** Removes a process that has ended. @returns its exit code */
  async delete(id: string, execId = '', options?: CallOptions): Promise<number> {
    return (await this.#task.delete({ id, execId }, options)).exitStatus;
  }

  /** Adds a process, given as the JSON of the runtime specification's process; `start` runs it. */
  async exec(
    id: string,
    execId: string,
    process: string | Uint8Array,
    stdio: StdioPaths & { terminal: boolean },
    options?: CallOptions,
  ): Promise<void> {
    await this.#task.exec({ id, execId, spec: jsonAny(TypeUrl.RuntimeSpecProcess, process), ...stdio }, options);
  }

  async resize(id: string, execId: string, width: number, height: number, options?: CallOptions): Promise<void> {
    await this.#task.resizePty({ id, execId, width, height }, options);
  }

  /** A path of a container as a tar, as `transfer.fromContainer`; for daemons that do not pass it on. Unimplemented by most shims. */
  copyFrom(id: string, path: string, options: CopyFromContainerOptions = {}): AsyncGenerator<Uint8Array> {
    return copyFromContainer(this.#transport, this.#transfer, id, path, { ...options, call: {} });
  }

  /** Unpacks a tar at a path of a container, as `transfer.toContainer`. */
  copyTo(
    id: string,
    path: string,
    archive: AsyncIterable<Uint8Array>,
    options: CopyToContainerOptions = {},
  ): Promise<void> {
    return copyToContainer(this.#transport, this.#transfer, id, path, archive, { ...options, call: {} });
  }

  readonly #transfer: DoTransfer = async (source, destination, { signal }) => {
    await createClient(Transfer, this.#transport).transfer({ source, destination }, { ...(signal && { signal }) });
  };

  /** Ends the shim, if it has no container. */
  async shutdown(id = '', options?: CallOptions): Promise<void> {
    await this.#task.shutdown({ id }, options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#transport.close();
  }
}
