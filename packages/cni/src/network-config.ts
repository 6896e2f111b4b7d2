import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { failedPrecondition, invalidArgument, StatusError } from '@gantry/api';
import { parseJson, stringifyJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import { negotiateVersion } from './version.ts';

/** One plugin of a network: its type is the program's name. */
export interface PluginConfig {
  type: string;
  capabilities?: Record<string, boolean>;
  [key: string]: unknown;
}

/** A network: plugins that are called one after another. */
export interface NetworkConfig {
  /** '' means 0.1.0. */
  cniVersion: string;
  name: string;
  plugins: PluginConfig[];
  disableCheck: boolean;
  disableGC: boolean;
  /** The list as it stands in its file, with all of its plugins; of a single plugin the list it makes. */
  source: string;
}

/** Nothing is configured, as opposed to something wrong. */
export const notInitialized = 'cni plugin not initialized';

const extensions = ['.conf', '.conflist', '.json'];

/**
 * The networks of a directory by order of file names, at most `max` of them (0: all). A file that is wrong before that many are
 * found spoils all: which network a pod gets must not depend on a mistake.
 * @throws StatusError FailedPrecondition if there are none, InvalidArgument for what is wrong, with containerd's words
 */
export async function loadNetworks(directory: string, max: number): Promise<NetworkConfig[]> {
  const files = await configFiles(directory, extensions);
  if (files.length === 0) throw failedPrecondition(`no network config found in ${directory}: ${notInitialized}`);
  const networks: NetworkConfig[] = [];
  for (const file of files) {
    const list = file.endsWith('.conflist');
    try {
      networks.push(list ? await readListFile(file) : singleNetwork(await readFile(file, 'utf8')));
    } catch (error) {
      const { message } = StatusError.from(error);
      throw invalidArgument(
        `failed to load CNI config ${list ? 'list ' : ''}file ${file}: ${message}: invalid cni config`,
        error,
      );
    }
    if (networks.length === max) break;
  }
  return networks;
}

async function configFiles(directory: string, endings: readonly string[]): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory() && endings.includes(path.extname(entry.name)))
      .map(({ name }) => path.join(directory, name))
      .sort();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw StatusError.wrap(error, `failed to read config file: ${directory}`);
  }
}

/** Since 1.1 plugins can be in files of their own, in a directory named after the network beside its file. */
async function readListFile(file: string): Promise<NetworkConfig> {
  const { network, onlyInlined } = parseList(await readFile(file, 'utf8'));
  const own = onlyInlined ? [] : await configFiles(path.join(path.dirname(file), network.name), ['.conf']);
  for (const each of own) network.plugins.push(readPlugin(parseObject(await readFile(each, 'utf8'), 'configuration')));
  if (network.plugins.length === 0) throw invalidArgument('no plugin configs found');
  if (own.length === 0) return network;
  const document = parseObject(network.source, 'configuration list');
  const whole = { ...document, plugins: network.plugins, loadOnlyInlinedPlugins: true };
  return { ...network, source: stringifyJson(whole) };
}

/** A list of plugins. @throws InvalidArgument for what is none */
export function readNetworkList(source: string): NetworkConfig {
  const { network } = parseList(source);
  if (network.plugins.length === 0) throw invalidArgument('no plugin configs found');
  return network;
}

function parseList(source: string): { network: NetworkConfig; onlyInlined: boolean } {
  const what = 'configuration list';
  const document = parseObject(source, what);
  const wrong = (reason: string) => invalidArgument(`error parsing ${what}: ${reason}`);
  const { name, cniVersion = '', cniVersions = [], plugins } = document;
  if (name === undefined) throw wrong('no name');
  if (typeof name !== 'string') throw wrong(`invalid name type ${typeof name}`);
  checkName(name);
  if (typeof cniVersion !== 'string') throw wrong(`invalid cniVersion type ${typeof cniVersion}`);
  if (!isTexts(cniVersions)) throw wrong('invalid type for cniVersions');
  const flag = (key: string): boolean => {
    const value = document[key] ?? false;
    const text = typeof value === 'string' ? value.toLowerCase() : value;
    if (text === true || text === 'true') return true;
    if (text === false || text === 'false') return false;
    throw wrong(`invalid value ${JSON.stringify(value)} for ${key}`);
  };
  const onlyInlined = flag('loadOnlyInlinedPlugins');
  if (plugins === undefined && onlyInlined) throw wrong("`loadOnlyInlinedPlugins` is true, and no 'plugins' key");
  if (plugins !== undefined && !Array.isArray(plugins)) throw wrong(`invalid 'plugins' type ${typeof plugins}`);
  if (plugins?.length === 0) throw wrong('no plugins in list');
  const network = {
    name,
    cniVersion: cniVersions.length > 0 ? negotiateVersion(cniVersion, cniVersions) : cniVersion,
    disableCheck: flag('disableCheck'),
    disableGC: flag('disableGC'),
    plugins: (plugins ?? []).map((plugin, index) => {
      try {
        return readPlugin(plugin);
      } catch (error) {
        throw StatusError.wrap(error, `failed to parse plugin config ${index}`);
      }
    }),
    source,
  };
  return { network, onlyInlined };
}

/** The older form: a file that is one plugin. @throws InvalidArgument for what is none */
export function singleNetwork(source: string): NetworkConfig {
  const plugin = readPlugin(parseObject(source, 'configuration'));
  const { name = '', cniVersion = '' } = plugin as { name?: unknown; cniVersion?: unknown };
  if (typeof name !== 'string' || typeof cniVersion !== 'string')
    throw invalidArgument('error parsing configuration: name and cniVersion are text');
  return readNetworkList(stringifyJson({ name, cniVersion, plugins: [plugin] }));
}

function readPlugin(plugin: unknown): PluginConfig {
  const wrong = (reason: string) => invalidArgument(`error parsing configuration: ${reason}`);
  if (typeof plugin !== 'object' || plugin === null || Array.isArray(plugin)) throw wrong('it is no object');
  const { type, capabilities } = plugin as Record<string, unknown>;
  if (type === undefined || type === '') throw wrong("missing 'type'");
  if (typeof type !== 'string') throw wrong(`invalid type ${JSON.stringify(type)}`);
  const flags = capabilities ?? {};
  if (typeof flags !== 'object' || !Object.values(flags).every((value) => typeof value === 'boolean'))
    throw wrong('capabilities are true or false by name');
  return plugin as PluginConfig;
}

/** A name becomes part of file names: of the cache, and of what plugins keep. */
function checkName(name: string): void {
  if (name === '') throw invalidArgument('missing network name');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name))
    throw invalidArgument(`invalid characters found in network name; ${name}`);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function parseObject(source: string, what: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = parseJson(source);
  } catch (error) {
    throw invalidArgument(`error parsing ${what}: ${(error as Error).message}`, error);
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    throw invalidArgument(`error parsing ${what}: it is no object`);
  return document as Record<string, unknown>;
}
