import { failedPrecondition, internal } from '@gantry/api';
import { Diff } from '@gantry/api/gen/services/diff/v1/diff_pb.js';
import type { Mount } from '@gantry/mount';
import { type Descriptor, fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import type { Client } from '@gantry/rpc';
import type { ApplyOptions, Differ, DiffOptions } from '../../core/diff/differ.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { ProxyConnection } from './proxy-connection.ts';
import { toWireMounts } from './wire-mounts.ts';

/**
 * A differ behind containerd.services.diff.v1. Blobs are named by digest only: it reads them from, and writes them to, a content store
 * that it shares with this daemon.
 */
export class ProxyDiffer implements Differ {
  readonly bottomUp = true;
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Diff>;

  constructor(connection: ProxyConnection) {
    this.#connection = connection;
    this.#client = connection.client(Diff);
  }

  async apply(
    ctx: RequestContext,
    descriptor: Descriptor,
    mounts: Mount[],
    { standalone = false, syncFs = false, processorPayloads = {} }: ApplyOptions = {},
  ): Promise<Descriptor> {
    ctx.signal?.throwIfAborted();
    if (standalone) {
      throw failedPrecondition('a differ of another process cannot tell whether a layer needs those below');
    }
    const request = {
      diff: toWireDescriptor(descriptor),
      mounts: toWireMounts(mounts),
      payloads: processorPayloads,
      syncFs,
    };
    const { applied } = await this.#connection.call(this.#client.apply(request, this.#connection.options(ctx)));
    return given(applied);
  }

  async diff(
    ctx: RequestContext,
    lower: Mount[],
    upper: Mount[],
    { mediaType = '', ref = '', labels = {}, sourceDateEpoch }: DiffOptions = {},
  ): Promise<Descriptor> {
    ctx.signal?.throwIfAborted();
    const request = {
      left: toWireMounts(lower),
      right: toWireMounts(upper),
      mediaType,
      ref,
      labels,
      ...(sourceDateEpoch !== undefined && { sourceDateEpoch: { seconds: sourceDateEpoch, nanos: 0 } }),
    };
    // The blob it writes is held by the caller's lease.
    const options = { ...this.#connection.options(ctx), ...(ctx.lease && { lease: ctx.lease }) };
    return given((await this.#connection.call(this.#client.diff(request, options))).diff);
  }
}

function given(descriptor: Parameters<typeof fromWireDescriptor>[0]): Descriptor {
  const result = fromWireDescriptor(descriptor);
  if (!result) throw internal('the answer of the differ has no descriptor');
  return result;
}
