import { invalidArgument } from '@gantry/api';
import { defaultPlatform, formatPlatform, parsePlatform } from '@gantry/oci';
import type { Plugin, PluginType } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { ProxyConnection } from './proxy-connection.ts';
import { ProxyContent } from './proxy-content.ts';
import { ProxyDiffer } from './proxy-differ.ts';
import { ProxySandboxController } from './proxy-sandbox-controller.ts';
import { ProxySnapshotter } from './proxy-snapshotter.ts';

/** One entry of `[proxy_plugins]`. */
export interface ProxySettings {
  /** `snapshot`, `content`, `diff` or `sandbox`, or the type of plugin that is meant. */
  type: string;
  address: string;
  /** '' for that of this machine. */
  platform: string;
  exports: Record<string, string>;
  capabilities: string[];
}

interface Kind {
  type: PluginType<unknown>;
  make(connection: ProxyConnection, id: string): unknown;
}

const kinds: Record<string, Kind> = {
  content: { type: PluginTypes.Content, make: (connection) => new ProxyContent(connection) },
  diff: { type: PluginTypes.Differ, make: (connection) => new ProxyDiffer(connection) },
  sandbox: {
    type: PluginTypes.SandboxController,
    make: (connection, id) => new ProxySandboxController(connection, id),
  },
  snapshot: { type: PluginTypes.Snapshotter, make: (connection, id) => new ProxySnapshotter(connection, id) },
};

/** The plugin that speaks to the process of an entry of `[proxy_plugins]`; undefined for a type it does not know. */
export function proxyPlugin(id: string, settings: ProxySettings): Plugin | undefined {
  const kind = kinds[settings.type] ?? Object.values(kinds).find(({ type }) => type === settings.type);
  if (!kind) return undefined;
  return {
    type: kind.type,
    id,
    init(context) {
      const { meta } = context;
      if (settings.address === '') throw invalidArgument(`proxy plugin ${id}: address must be given`);
      Object.assign(meta.exports, settings.exports, { address: settings.address });
      meta.platforms.push(formatPlatform(settings.platform ? parsePlatform(settings.platform) : defaultPlatform()));
      meta.capabilities.push(...settings.capabilities);
      const connection = new ProxyConnection(id, settings.address);
      context.onClose(() => connection.close());
      return kind.make(connection, id);
    },
  };
}
