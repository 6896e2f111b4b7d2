// Puts plugins in the order in which they start: what one requires comes before it, and otherwise the order of the list
// stays, so that the same list always starts the same way.
import { failedPrecondition } from '@gantry/api';
import type { Plugin } from '../core/plugin/plugin.ts';

export function pluginUri(plugin: { type: string; id: string }): string {
  return `${plugin.type}.${plugin.id}`;
}

/** Whether a requirement (`*`, a type, or `type.id`) means that plugin. */
function means(requirement: string, plugin: Plugin): boolean {
  return requirement === plugin.type || requirement === pluginUri(plugin);
}

/**
 * The plugins in starting order. Those that require `*` come after all that do not.
 * @throws StatusError FailedPrecondition for a circle of requirements, naming it, and for two plugins of one name.
 */
export function orderPlugins(plugins: readonly Plugin[]): Plugin[] {
  const names = new Set<string>();
  for (const plugin of plugins) {
    const uri = pluginUri(plugin);
    if (names.has(uri)) throw failedPrecondition(`plugin ${uri} is in the list twice`);
    names.add(uri);
  }
  const ordered: Plugin[] = [];
  const done = new Set<Plugin>();
  const path: Plugin[] = [];
  const visit = (plugin: Plugin): void => {
    if (done.has(plugin)) return;
    const at = path.indexOf(plugin);
    if (at >= 0) {
      const circle = [...path.slice(at), plugin].map(pluginUri).join(' -> ');
      throw failedPrecondition(`plugins require each other in a circle: ${circle}`);
    }
    path.push(plugin);
    for (const requirement of plugin.requires ?? []) {
      for (const other of plugins) {
        if (other === plugin) continue;
        const wanted = requirement === '*' ? !(other.requires ?? []).includes('*') : means(requirement, other);
        if (wanted) visit(other);
      }
    }
    path.pop();
    done.add(plugin);
    ordered.push(plugin);
  };
  for (const plugin of plugins) visit(plugin);
  return ordered;
}
