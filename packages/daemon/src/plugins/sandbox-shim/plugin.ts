import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { ShimGroups } from '../runtime-v2/shim-groups.ts';
import { ShimSandboxController } from './shim-sandbox-controller.ts';

/** `io.containerd.sandbox.controller.v1.shim`: sandboxes by the Sandbox API of shims. Loads what the last daemon left running. */
export const shimSandboxControllerPlugin = definePlugin({
  type: PluginTypes.SandboxController,
  id: 'shim',
  requires: [PluginTypes.Shim, PluginTypes.Event],
  async init(context): Promise<ShimSandboxController> {
    const controller = new ShimSandboxController({
      roots: { state: context.state, root: context.root },
      groups: context.get(PluginTypes.Shim, 'manager') as ShimGroups,
      cleanupTimeoutMs: context.daemon.timeout('io.containerd.timeout.shim.cleanup'),
      log: context.log,
    });
    await controller.load();
    return controller;
  },
});
