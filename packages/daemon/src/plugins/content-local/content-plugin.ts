import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { thisBoot } from '../../core/sync/this-boot.ts';
import { LocalContent } from './local-content.ts';

/** `io.containerd.content.v1.content`: the content store on the local disk. */
export const localContentPlugin = definePlugin({
  type: PluginTypes.Content,
  id: 'content',
  async init(context) {
    context.meta.exports['root'] = context.root;
    return await LocalContent.open(context.root, await thisBoot(context.state));
  },
});
