import { StatusError, unimplemented, unknown } from '@gantry/api';
import { parseJson } from '@gantry/oci';
import { type Attachment, checkContainerId, checkInterfaceName } from './attachment.ts';
import type { NetworkConfig, PluginConfig } from './network-config.ts';
import { type PluginResult, readResult, resultAsVersion } from './plugin-result.ts';
import type { ResultCache } from './result-cache.ts';
import { type PluginCall, runPlugin } from './run-plugin.ts';
import { knowsCommand, newestVersion } from './version.ts';

/** Calls the plugins of one network, one after another. */

/** Where plugins are, and how long each may take. */
export interface CallOptions {
  directories: readonly string[];
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

export interface CachedCallOptions extends CallOptions {
  cache: ResultCache;
}

/** ADD of each plugin, the result of one going to the next; the last is kept in the cache. @throws StatusError of the first that fails */
export async function addNetwork(
  network: NetworkConfig,
  attachment: Attachment,
  options: CachedCallOptions,
): Promise<PluginResult> {
  checkContainerId(attachment.containerId);
  checkInterfaceName(attachment.interfaceName);
  let result: PluginResult | undefined;
  for (const plugin of network.plugins) {
    const previous = result && resultAsVersion(result, result.cniVersion);
    const config = pluginInput(network, plugin, { prevResult: previous }, attachment);
    try {
      const printed = await runPlugin(plugin.type, config, callOf('ADD', attachment, options));
      result = readResult(parsePrinted(printed), network.cniVersion);
    } catch (error) {
      throw StatusError.wrap(error, `plugin ${describe(plugin)} failed (add)`);
    }
  }
  if (!result) throw unknown(`network ${JSON.stringify(network.name)} has no plugins`);
  try {
    await options.cache.put(network, attachment, result);
  } catch (error) {
    throw StatusError.wrap(error, `failed to set network ${JSON.stringify(network.name)} cached result`);
  }
  return result;
}

/** DEL of each plugin, the last first, with what ADD gave. @throws StatusError of the first that fails; those before it are then not asked */
export async function deleteNetwork(
  network: NetworkConfig,
  attachment: Attachment,
  options: CachedCallOptions,
): Promise<void> {
  const prevResult = knowsCommand(network.cniVersion, 'CHECK')
    ? await options.cache.result(network, attachment)
    : undefined;
  for (const plugin of [...network.plugins].reverse()) {
    const config = pluginInput(network, plugin, { prevResult }, attachment);
    try {
      await runPlugin(plugin.type, config, callOf('DEL', attachment, options));
    } catch (error) {
      throw StatusError.wrap(error, `plugin ${describe(plugin)} failed (delete)`);
    }
  }
  await options.cache.remove(network.name, attachment);
}

/** DEL of each plugin; that what is to be removed is not there is no error. */
export async function releaseNetwork(
  network: NetworkConfig,
  attachment: Attachment,
  options: CachedCallOptions,
): Promise<void> {
  try {
    await deleteNetwork(network, attachment, options);
  } catch (error) {
    const { message } = StatusError.from(error);
    // Plugins do not agree on what they say then.
    const absent = attachment.netns === '' && message.includes('no such file or directory');
    if (!absent && !message.includes('not found')) throw error;
    await options.cache.remove(network.name, attachment);
  }
}

/**
 * CHECK of each plugin: that an attachment is as its ADD has made it.
 * @throws StatusError of the first that finds otherwise; Unimplemented for a network older than 0.4.0
 */
export async function checkNetwork(
  network: NetworkConfig,
  attachment: Attachment,
  options: CachedCallOptions,
): Promise<void> {
  if (!knowsCommand(network.cniVersion, 'CHECK')) {
    const version = JSON.stringify(network.cniVersion);
    throw unimplemented(`configuration version ${version} does not support the CHECK command`);
  }
  if (network.disableCheck) return;
  const prevResult = await options.cache.result(network, attachment);
  for (const plugin of network.plugins) {
    const config = pluginInput(network, plugin, { prevResult }, attachment);
    await runPlugin(plugin.type, config, callOf('CHECK', attachment, options));
  }
}

/** STATUS of each plugin, for networks of 1.1.0; others are ready. @throws StatusError of the first that is not ready */
export async function networkStatus(network: NetworkConfig, options: CallOptions): Promise<void> {
  if (!knowsCommand(network.cniVersion, 'STATUS')) return;
  for (const plugin of network.plugins)
    await runPlugin(plugin.type, pluginInput(network, plugin, {}), { command: 'STATUS', ...options });
}

/** An attachment that is in use, as GC is told. */
export interface ValidAttachment {
  containerID: string;
  ifname: string;
}

/** GC of each plugin: whatever they hold for others than these they let go. Nothing for networks that do not know it, or do not want it. */
export async function collectNetwork(
  network: NetworkConfig,
  valid: readonly ValidAttachment[],
  options: CallOptions,
): Promise<void> {
  if (network.disableGC || !knowsCommand(network.cniVersion, 'GC')) return;
  const failures: unknown[] = [];
  // The specification had another name for it at first.
  const attachments = { 'cni.dev/valid-attachments': valid, 'cni.dev/attachments': valid };
  for (const plugin of network.plugins) {
    const config = pluginInput(network, plugin, attachments);
    await runPlugin(plugin.type, config, { command: 'GC', ...options }).catch((error) =>
      failures.push(StatusError.wrap(error, `failed to GC plugin ${plugin.type}`)),
    );
  }
  if (failures.length > 0) throw failures[0];
}

/** Versions of the specification that a plugin knows; one that does not know the question is of the first. */
export async function pluginVersions(type: string, options: CallOptions): Promise<string[]> {
  // What older plugins want to see even then.
  const call = { command: 'VERSION', netns: 'dummy', interfaceName: 'dummy', ...options } as const;
  let printed: string;
  try {
    printed = await runPlugin(type, { cniVersion: newestVersion }, call);
  } catch (error) {
    if (StatusError.from(error).message === 'unknown CNI_COMMAND: VERSION') return ['0.1.0'];
    throw error;
  }
  const said = parsePrinted(printed) as { cniVersion?: unknown; supportedVersions?: unknown } | null;
  const versions = said?.supportedVersions;
  if (Array.isArray(versions) && versions.every((version) => typeof version === 'string')) return versions;
  // Only the very first could leave the list out.
  if (typeof said?.cniVersion === 'string' && said.cniVersion < '0.3') return ['0.1.0', '0.2.0'];
  throw unknown(`plugin ${JSON.stringify(type)} does not say which versions it supports`);
}

function callOf(
  command: PluginCall['command'],
  { containerId, netns, interfaceName, args }: Attachment,
  { directories, timeoutMs, signal }: CallOptions,
): PluginCall {
  return {
    command,
    containerId,
    netns,
    interfaceName,
    args: args.map(([key, value]) => `${key}=${value}`).join(';'),
    directories,
    signal,
    ...(timeoutMs !== undefined && { timeoutMs }),
  };
}

function pluginInput(network: NetworkConfig, plugin: PluginConfig, more: object, attachment?: Attachment): object {
  const known = attachment?.capabilityArgs ?? {};
  const runtimeConfig = Object.fromEntries(
    Object.entries(plugin.capabilities ?? {})
      .filter(([name, wanted]) => wanted && Object.hasOwn(known, name))
      .map(([name]) => [name, known[name]]),
  );
  const given = Object.entries(more).filter(([, value]) => value !== undefined);
  return {
    ...plugin,
    cniVersion: network.cniVersion,
    name: network.name,
    ...Object.fromEntries(given),
    ...(Object.keys(runtimeConfig).length > 0 && { runtimeConfig }),
  };
}

function parsePrinted(text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    throw unknown(`failed to unmarshal raw result: ${(error as Error).message}`, error);
  }
}

function describe({ type, name }: PluginConfig): string {
  const named = typeof name === 'string' && name !== '' ? ` name=${JSON.stringify(name)}` : '';
  return `type=${JSON.stringify(type)}${named}`;
}
