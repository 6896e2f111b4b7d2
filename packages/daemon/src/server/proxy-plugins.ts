// `[proxy_plugins]`: plugins that run in another process. Each becomes a plugin of the type it stands for.
import { unimplemented } from '@gantry/api';
import type { Plugin } from '../core/plugin/plugin.ts';
import { type ProxyPluginConfig, proxyTypes, type ServerConfig } from './config/server-config.ts';
import { pluginUri } from './plugin-graph.ts';

/** Makes the plugin that speaks to a process; undefined if it does not know the type. */
export type ProxyFactory = (id: string, config: ProxyPluginConfig) => Plugin | undefined;

/** The plugins for the configured proxies. One that no factory can make is in the list as failed, with the reason. */
export function proxyPlugins(config: ServerConfig, make: ProxyFactory | undefined): Plugin[] {
  return Object.entries(config.proxy_plugins).map(([id, entry]) => {
    const made = make?.(id, entry);
    if (made) return made;
    return {
      type: proxyTypes[entry.type as keyof typeof proxyTypes] ?? (entry.type || 'io.containerd.proxy.v1'),
      id,
      init: () => {
        throw unimplemented(`proxy plugin ${id}: this daemon has no proxy for the type ${JSON.stringify(entry.type)}`);
      },
    };
  });
}

/** Built-in plugins and those of the configuration, which take the places of built-in ones of the same type and name. */
export function withProxies(builtIn: readonly Plugin[], proxies: readonly Plugin[]): Plugin[] {
  const replaced = new Set(proxies.map(pluginUri));
  return [...builtIn.filter((plugin) => !replaced.has(pluginUri(plugin))), ...proxies];
}
