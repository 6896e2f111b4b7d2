import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { TaskManager } from '../runtime-v2/task-manager.ts';
import { ContainerTransfer } from './container-transfer.ts';

/** `io.containerd.transfer.v1.shim`, Gantry's own: transfers that the shims of containers do. */
export const shimTransferPlugin = definePlugin({
  type: PluginTypes.Transfer,
  id: 'shim',
  requires: [PluginTypes.Runtime, PluginTypes.Streaming],
  init(context): ContainerTransfer {
    const tasks = context.get(PluginTypes.Runtime, 'task') as TaskManager;
    return new ContainerTransfer(context.get(PluginTypes.Streaming, 'manager'), (ctx, id) => tasks.shimOf(ctx, id));
  },
});
