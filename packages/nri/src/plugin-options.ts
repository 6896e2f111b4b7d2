import { parseArgs } from 'node:util';
import { environment } from './connection-numbers.ts';
import type { PluginOptions } from './plugin.ts';

/**
 * Options of a plugin's command line: `--name`, `--idx` and `--socket-path`, as other plugins have them. One that the runtime has
 * started knows its name and index from it.
 * @throws TypeError for arguments that are none of these
 */
export function pluginOptions(
  name: string,
  index: string,
  args: readonly string[] = process.argv.slice(2),
): PluginOptions {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ args: [...args], options: { name: text, idx: text, 'socket-path': text } });
  const { [environment.name]: givenName, [environment.index]: givenIndex } = process.env;
  return {
    name: values.name ?? givenName ?? name,
    index: values.idx ?? givenIndex ?? index,
    ...(values['socket-path'] !== undefined && { socketPath: values['socket-path'] }),
  };
}
