import { alreadyExists, notFound } from '@gantry/api';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { MessageStream, StreamManager } from '../../core/streaming/stream-manager.ts';

/** Keeps streams by namespace and name for as long as they are open. */
export class LocalStreamManager implements StreamManager {
  readonly #streams = new Map<string, MessageStream>();

  register(ctx: RequestContext, name: string, stream: MessageStream): void {
    const key = `${ctx.namespace}/${name}`;
    if (this.#streams.has(key)) throw alreadyExists(`stream "${name}": already exists`);
    this.#streams.set(key, stream);
    void stream.closed.then(() => this.#streams.delete(key));
  }

  get(ctx: RequestContext, name: string): MessageStream {
    const stream = this.#streams.get(`${ctx.namespace}/${name}`);
    if (!stream) throw notFound(`stream "${name}": not found`);
    return stream;
  }
}

export const streamingManager = definePlugin({
  type: PluginTypes.Streaming,
  id: 'manager',
  init: (): StreamManager => new LocalStreamManager(),
});
