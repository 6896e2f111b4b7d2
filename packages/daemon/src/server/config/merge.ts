// How one configuration file is laid over another: containerd's rules for imports.
import { isTable } from '../../core/plugin/config-check.ts';

type Table = Record<string, unknown>;

/** Tables merge key by key, everything else is replaced. */
function mergeTables(to: Table, from: Table): Table {
  const result: Table = { ...to };
  for (const [key, value] of Object.entries(from)) {
    const old = result[key];
    result[key] = isTable(old) && isTable(value) ? mergeTables(old, value) : value;
  }
  return result;
}

/**
 * `from` over `to`, both of the newest version: single values are replaced unless the new one is empty, arrays of the top
 * level are joined without repeats, tables of plugins are merged, entries of `proxy_plugins` and `stream_processors`
 * are replaced whole.
 */
export function mergeConfig(to: Record<string, unknown>, from: Record<string, unknown>): Record<string, unknown> {
  const result: Table = { ...to };
  for (const [key, value] of Object.entries(from)) {
    const old = result[key];
    if (Array.isArray(old) && Array.isArray(value)) {
      result[key] = [...old, ...value.filter((item) => !old.includes(item))];
    } else if (isTable(old) && isTable(value)) {
      const whole = key === 'proxy_plugins' || key === 'stream_processors';
      result[key] = whole ? { ...old, ...value } : mergeTables(old, value);
    } else if (old === undefined || (value !== '' && value !== 0)) {
      result[key] = value;
    }
  }
  return result;
}
