import { fromTimestamp, now } from '@gantry/api';
import { Sandbox as SandboxService } from '@gantry/api/gen/runtime/sandbox/v1/sandbox_pb.js';
import type { CallOptions, Client } from '@gantry/rpc';
import type { SandboxExit } from '../../core/sandboxes/sandbox-controller.ts';
import type { Bundle } from '../runtime-v2/bundle.ts';
import type { ShimConnection } from '../runtime-v2/shim-connection.ts';
import type { GroupMember, ShimGroup } from '../runtime-v2/shim-group.ts';

/** One call of a shim's Sandbox API. */
export type SandboxCall<T> = (client: Client<typeof SandboxService>, options: CallOptions) => Promise<T>;

/** A sandbox in a shim: every call goes to whichever shim process its group has now. */
export class ShimSandbox implements GroupMember {
  readonly files: Bundle;
  readonly group: ShimGroup;
  readonly #onLost: (sandbox: ShimSandbox) => Promise<void>;
  readonly #ended = Promise.withResolvers<SandboxExit>();
  /** It is being made or shut down: whoever does that clears up if the shim goes. */
  #unsettled = true;

  constructor(bundle: Bundle, group: ShimGroup, onLost: (sandbox: ShimSandbox) => Promise<void>) {
    this.files = bundle;
    this.group = group;
    this.#onLost = onLost;
  }

  get id(): string {
    return this.files.id;
  }

  get namespace(): string {
    return this.files.namespace;
  }

  /** Made, or found again: from now on the loss of its shim is the end of it. */
  settle(): void {
    this.#unsettled = false;
  }

  unsettle(): void {
    this.#unsettled = true;
  }

  async call<T>(call: SandboxCall<T>, signal?: AbortSignal): Promise<T> {
    return this.#over(await this.group.connection(), call, signal);
  }

  /** Like `call`, for what may be asked twice: if a shim of ours dies over it, the next one is asked. */
  async ask<T>(call: SandboxCall<T>, signal?: AbortSignal): Promise<T> {
    for (;;) {
      const connection = await this.group.connection();
      try {
        return await this.#over(connection, call, signal);
      } catch (error) {
        if (connection.open || !this.group.runtime.own || signal?.aborted) throw error;
        await connection.closed;
      }
    }
  }

  #over<T>(connection: ShimConnection, call: SandboxCall<T>, signal: AbortSignal | undefined): Promise<T> {
    return call(connection.client(SandboxService), { namespace: this.namespace, ...(signal && { signal }) });
  }

  /** Resolves when it has ended, or was lost. Rejects when the caller gives up. */
  async wait(signal?: AbortSignal): Promise<SandboxExit> {
    const asked = this.ask((client, options) => client.waitSandbox({ sandboxId: this.id }, options), signal).then(
      ({ exitStatus, exitedAt }) => ({ exitStatus, exitedAt: fromTimestamp(exitedAt) ?? now() }),
    );
    return Promise.race([
      this.#ended.promise,
      asked.catch(async (error) => {
        // Its shim is gone, and is not started again: what is known of the end comes from its `delete` action.
        if (signal?.aborted || this.group.alive) throw error;
        return this.#ended.promise;
      }),
    ]);
  }

  /** For those who wait when nobody can be asked any more. */
  tellEnd(exit: SandboxExit): void {
    this.#ended.resolve(exit);
  }

  async lost(): Promise<void> {
    if (!this.#unsettled) await this.#onLost(this);
  }

  async readopted(): Promise<void> {
    if (this.#unsettled) return;
    try {
      await this.call((client, options) => client.pingSandbox({ sandboxId: this.id }, options));
    } catch (error) {
      const connection = await this.group.connection();
      // Gone again: its next start asks once more.
      if (!connection.open) throw error;
      await this.#onLost(this);
    }
  }
}
