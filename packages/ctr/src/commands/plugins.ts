import { Code, type Plugin, runtimeInfo } from '@gantry/client';
import { formatPlatformAll } from '@gantry/oci';
import type { Command } from '../command.ts';
import { print, printJson, printLines, printTable } from '../output.ts';
import { runtimeFlags, runtimeOptions } from '../runtime-options.ts';
import { withClient } from '../session.ts';

const platformsOf = (plugin: Plugin): string => plugin.platforms.map(formatPlatformAll).sort().join(',');

const codeName = (code: number): string =>
  Object.entries(Code).find(([, value]) => value === code)?.[0] ?? String(code);

function detail(plugin: Plugin): string {
  const lines = [`Type:             ${plugin.type}`, `ID:               ${plugin.id}`];
  const block = (head: string, rows: readonly (readonly [string, string])[]) => {
    if (rows.length === 0) return;
    lines.push(head);
    const width = Math.max(...rows.map(([name]) => name.length));
    for (const [name, value] of rows)
      lines.push(`${' '.repeat(18)}${value ? `${name.padEnd(width + 6)}${value}` : name}`);
  };
  block(
    'Requires:',
    plugin.requires.map((type) => [type, '']),
  );
  if (plugin.platforms.length > 0) lines.push(`Platforms:        ${platformsOf(plugin)}`);
  block('Exports:', Object.entries(plugin.exports).sort());
  if (plugin.capabilities.length > 0) lines.push(`Capabilities:     ${plugin.capabilities.join(',')}`);
  if (plugin.error)
    block('Error:', [
      ['Code:', codeName(plugin.error.code)],
      ['Message:', plugin.error.message],
    ]);
  return `${lines.join('\n')}\n\n`;
}

function statusOf({ error }: Plugin): string {
  if (!error) return 'ok';
  // A plugin that does not fit this machine or its configuration says so in its error.
  return error.message.includes('skip plugin') ? 'skip' : 'error';
}

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: "list the daemon's plugins",
  argsUsage: '[flags] [<filter>, ...]',
  example: "ctr plugins ls -d 'type~=snapshotter'",
  flags: [
    { name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the ids only' },
    { name: 'detailed', aliases: ['d'], kind: 'bool', usage: 'print all there is to know of each' },
  ],
  run: withClient(async (client, invocation) => {
    const plugins = await client.introspection.plugins([...invocation.args]);
    if (invocation.bool('quiet')) return printLines(plugins.map(({ id }) => id));
    if (invocation.bool('detailed')) return print(plugins.map(detail).join(''));
    printTable([
      ['TYPE', 'ID', 'PLATFORMS', 'STATUS', ''],
      ...plugins.map((plugin) => [plugin.type, plugin.id, platformsOf(plugin) || '-', statusOf(plugin), '']),
    ]);
  }),
};

const inspectRuntime: Command = {
  name: 'inspect-runtime',
  usage: 'print what a runtime can do',
  example: 'ctr plugins inspect-runtime --runc-binary crun',
  flags: runtimeFlags,
  run: withClient(async (client, invocation) => {
    const options = runtimeOptions(invocation);
    const info = await runtimeInfo(client.introspection, invocation.string('runtime'), options ? { options } : {});
    printJson({
      Name: info.name,
      Version: { Version: info.version.version, Revision: info.version.revision },
      Options: info.options ?? null,
      Features: info.features ?? null,
      Annotations: Object.keys(info.annotations).length > 0 ? info.annotations : null,
    });
  }),
};

export const plugins: Command = {
  name: 'plugins',
  aliases: ['plugin'],
  usage: "look at the daemon's plugins",
  example: 'ctr plugins ls',
  commands: [list, inspectRuntime],
};
