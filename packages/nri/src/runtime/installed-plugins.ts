import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { StatusError, unavailable } from '@gantry/api';
import { environment } from '../connection-numbers.ts';
import { type PluginIdentity, parsePluginName } from '../plugin-name.ts';

export interface InstalledPlugin extends PluginIdentity {
  file: string;
}

/** Programs in the directory for them, `10-logger`, in the order of their indices. Those with other names are told of and left out. */
export async function installedPlugins(
  directory: string,
  onProblem: (file: string, reason: unknown) => void,
): Promise<InstalledPlugin[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code !== 'ENOENT') onProblem(directory, reason);
    return [];
  }
  const plugins: InstalledPlugin[] = [];
  for (const name of names.sort()) {
    const file = path.join(directory, name);
    try {
      const info = await stat(file);
      if (info.isFile() && (info.mode & 0o111) !== 0) plugins.push({ file, ...parsePluginName(name) });
    } catch (reason) {
      onProblem(file, reason);
    }
  }
  return plugins;
}

/** The text of `IDX-NAME.conf`, else of `NAME.conf`, else ''. */
export async function pluginConfig(directory: string, { index, name }: PluginIdentity): Promise<string> {
  for (const file of [`${index}-${name}.conf`, `${name}.conf`]) {
    try {
      return await readFile(path.join(directory, file), 'utf8');
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw StatusError.wrap(reason, `failed to read configuration for plugin "${index}-${name}"`);
    }
  }
  return '';
}

/** Descriptor of the connection in a plugin that was started. */
const inherited = 3;

/** Starts one, with a connection as descriptor 3. @throws Unavailable if it cannot be run */
export async function launchPlugin(plugin: InstalledPlugin): Promise<{ process: ChildProcess; connection: Duplex }> {
  const { file, index, name } = plugin;
  const child = spawn(file, [], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    env: {
      [environment.name]: name,
      [environment.index]: index,
      [environment.socket]: String(inherited),
    },
  });
  try {
    await once(child, 'spawn');
  } catch (reason) {
    throw unavailable(`failed to launch plugin "${index}-${name}": ${(reason as Error).message}`, reason);
  }
  child.on('error', () => undefined);
  return { process: child, connection: child.stdio[inherited] as Duplex };
}
