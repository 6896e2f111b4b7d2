import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { parseJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';

/** One plugin of a network: its type is the program's name. */
export interface PluginConfig {
  type: string;
  capabilities?: Record<string, boolean>;
  [key: string]: unknown;
}

/** A network: plugins that are called one after another. */
export interface NetworkConfig {
  cniVersion: string;
  name: string;
  plugins: PluginConfig[];
  disableCheck: boolean;
  /** As it stands in the file. */
  source: string;
}

const extensions = ['.conf', '.conflist', '.json'];

/** The networks of a directory by order of file names, at most `max` of them (0: all). @throws StatusError that says what is missing or wrong */
export async function loadNetworks(directory: string, max: number): Promise<NetworkConfig[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    names = [];
  }
  const files = names.filter((name) => extensions.includes(path.extname(name))).sort();
  if (files.length === 0) throw invalidArgument(`no network config found in ${directory}: cni plugin not initialized`);
  const networks: NetworkConfig[] = [];
  for (const name of files) {
    if (max > 0 && networks.length === max) break;
    const file = path.join(directory, name);
    networks.push(readNetwork(await readFile(file, 'utf8'), file));
  }
  return networks;
}

/** A list of plugins, or a single one. @throws InvalidArgument for what is neither */
export function readNetwork(source: string, file: string): NetworkConfig {
  let document: Record<string, unknown>;
  try {
    document = parseJson<Record<string, unknown>>(source);
  } catch (error) {
    throw invalidArgument(`failed to load CNI config file ${file}: ${(error as Error).message}`);
  }
  const { name, cniVersion, plugins, disableCheck } = document;
  if (typeof name !== 'string' || name === '') {
    throw invalidArgument(`failed to load CNI config file ${file}: it has no name`);
  }
  const list = Array.isArray(plugins) ? (plugins as PluginConfig[]) : [document as PluginConfig];
  const bad = list.find((plugin) => typeof plugin?.type !== 'string' || !/^[A-Za-z0-9._-]+$/.test(plugin.type));
  if (list.length === 0 || bad) {
    throw invalidArgument(`failed to load CNI config file ${file}: a plugin without a type`);
  }
  return {
    cniVersion: typeof cniVersion === 'string' ? cniVersion : '0.2.0',
    name,
    plugins: list,
    disableCheck: disableCheck === true || disableCheck === 'true',
    source,
  };
}
