import type { Any } from '@bufbuild/protobuf/wkt';
import { unimplemented } from '@gantry/api';
import { eitherCredentials } from '../../core/credentials/loaded-credentials.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { ActiveTransfers } from '../../core/transfer/active-transfers.ts';
import type { TransferOptions, Transferrer } from '../../core/transfer/transferrer.ts';
import { diffSnapshot } from './diff-snapshot.ts';
import {
  describe,
  type Endpoint,
  type EndpointContext,
  type ExportEndpoint,
  type ImportEndpoint,
  readEndpoint,
} from './endpoints.ts';
import type { TransferEnvironment } from './environment.ts';
import { exportImages } from './export.ts';
import { importImages } from './import.ts';
import { mirror } from './mirror.ts';
import { pull } from './pull.ts';
import { push } from './push.ts';
import { tag } from './tag.ts';
import { unpackLayer } from './unpack-layer.ts';

/** The daemon's own transferrer: looks at both ends and picks the way between them. */
export class LocalTransfer implements Transferrer {
  readonly active = new ActiveTransfers();
  readonly #env: TransferEnvironment;

  constructor(env: TransferEnvironment) {
    this.#env = env;
  }

  async transfer(ctx: RequestContext, source: Any, destination: Any, options: TransferOptions = {}): Promise<void> {
    const env = this.#env;
    const context: EndpointContext = {
      ctx,
      streams: env.streams,
      hostsDirectory: options.hostsDirectory ?? env.hostsDirectory,
      hosts: options.hosts,
      tokens: env.tokens,
      credentials: eitherCredentials(options.credentials, env.credentials),
      log: (message) => env.log.info(message),
    };
    const from = readEndpoint(source, context);
    const to = readEndpoint(destination, context);
    const about = { namespace: ctx.namespace, from: describe(from), to: describe(to) };
    await this.active.watch(about, options, (watched) => this.#between(ctx, from, to, watched));
  }

  async #between(ctx: RequestContext, from: Endpoint, to: Endpoint, options: TransferOptions): Promise<void> {
    const env = this.#env;
    switch (from.kind) {
      case 'registry':
        if (to.kind === 'store') return await pull(ctx, env, from, to, options);
        if (to.kind === 'registry') return await mirror(ctx, env, from, to, options);
        break;
      case 'store':
        if (to.kind === 'registry') return await push(ctx, env, from, to, options);
        if (to.kind === 'export') return await exportImages(ctx, env, from, to, options);
        if (to.kind === 'store') return await tag(ctx, env, from, to);
        break;
      case 'import':
        if (to.kind === 'store') return await importImages(ctx, env, from, to, options);
        if (to.kind === 'export') return await echo(from, to);
        break;
      case 'layer':
        if (to.kind === 'snapshot') return await unpackLayer(ctx, env, from, to, options);
        break;
      case 'snapshot':
        if (to.kind === 'layer') return await diffSnapshot(ctx, env, from, to, options);
        break;
      default:
    }
    throw unimplemented(`unable to transfer from ${describe(from)} to ${describe(to)}: not implemented`);
  }
}

/** Sends a stream back as it comes: clients test their streams with it. */
async function echo(from: ImportEndpoint, to: ExportEndpoint): Promise<void> {
  try {
    for await (const chunk of from.bytes) await to.sender.write(chunk);
  } finally {
    to.sender.close();
  }
}
