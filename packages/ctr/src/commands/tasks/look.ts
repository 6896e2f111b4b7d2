// Lists of tasks and of their processes, and what they use.
import { type Metric, plainAny } from '@gantry/client';
import type { Json } from '@gantry/oci';
import { type Command, UsageError } from '../../command.ts';
import { goJson, print, printLines, printTable } from '../../output.ts';
import { withClient } from '../../session.ts';

export const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the tasks',
  argsUsage: '[flags]',
  example: 'ctr tasks ls',
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the ids only' }],
  run: withClient(async (client, invocation) => {
    const tasks = await client.tasks.list();
    if (invocation.bool('quiet')) return printLines(tasks.map(({ containerId }) => containerId));
    printTable([
      ['TASK', 'PID', 'STATUS', ''],
      ...tasks.map(({ containerId, pid, state }) => [containerId, String(pid), state.toUpperCase()]),
    ]);
  }),
};

export const ps: Command = {
  name: 'ps',
  usage: "list a container's processes",
  argsUsage: 'CONTAINER',
  example: 'ctr tasks ps c1',
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    await client.containers.get(id);
    const pids = await (await client.tasks.get(id)).pids();
    printTable([
      ['PID', 'INFO'],
      ...pids.map(({ pid, info }) => {
        const details = info as { exec_id?: string } | undefined;
        return [String(pid), details?.exec_id ? details.exec_id : '-'];
      }),
    ]);
  }),
};

type Numbers = { [key: string]: Json };

const at = (data: Json | undefined, ...path: string[]): Json => {
  let value: Json | undefined = data;
  for (const key of path) value = (value as Numbers | undefined)?.[key];
  return value ?? 0;
};

const text = (value: Json): string =>
  Array.isArray(value) ? `[${value.map(String).join(' ')}]` : value === 0 ? '0' : String(value);

/** The lines of the table for control groups of version 1. */
function rows1(data: Json | undefined): [string, Json][] {
  const has = (key: string): boolean => (data as Numbers | undefined)?.[key] !== undefined;
  return [
    ...(has('memory')
      ? ([
          ['memory.usage_in_bytes', at(data, 'memory', 'usage', 'usage')],
          ['memory.limit_in_bytes', at(data, 'memory', 'usage', 'limit')],
          ['memory.stat.cache', at(data, 'memory', 'cache')],
        ] as [string, Json][])
      : []),
    ...(has('cpu')
      ? ([
          ['cpuacct.usage', at(data, 'cpu', 'usage', 'total')],
          ['cpuacct.usage_percpu', perCpu(at(data, 'cpu', 'usage', 'per_cpu'))],
        ] as [string, Json][])
      : []),
    ...(has('pids')
      ? ([
          ['pids.current', at(data, 'pids', 'current')],
          ['pids.limit', at(data, 'pids', 'limit')],
        ] as [string, Json][])
      : []),
  ];
}

const perCpu = (value: Json): Json => (Array.isArray(value) ? value : []);

/** And of version 2. */
function rows2(data: Json | undefined): [string, Json][] {
  const part = (key: string): Json | undefined => (data as Numbers | undefined)?.[key];
  const rows: [string, Json][] = [];
  if (part('pids')) rows.push(['pids.current', at(data, 'pids', 'current')], ['pids.limit', at(data, 'pids', 'limit')]);
  if (part('cpu')) {
    for (const name of ['usage_usec', 'user_usec', 'system_usec', 'nr_periods', 'nr_throttled', 'throttled_usec'])
      rows.push([`cpu.${name}`, at(data, 'cpu', name)]);
  }
  if (part('memory')) {
    for (const name of ['usage', 'usage_limit', 'swap_usage', 'swap_limit'])
      rows.push([`memory.${name}`, at(data, 'memory', name)]);
    const skipped = new Set(['usage', 'usage_limit', 'max_usage', 'swap_usage', 'swap_limit', 'swap_max_usage']);
    for (const [name, value] of Object.entries(part('memory') as Numbers))
      if (!skipped.has(name)) rows.push([`memory.${name}`, value]);
  }
  return rows;
}

function printMetric(metric: Metric): void {
  const { timestamp } = metric;
  const parts = timestamp
    ? [`seconds:${timestamp.seconds}`, ...(timestamp.nanos ? [`nanos:${timestamp.nanos}`] : [])]
    : [];
  printTable([
    ['ID', 'TIMESTAMP', ''],
    [metric.id, `${parts.join(' ')}`, ''],
  ]);
  print('\n');
  const data = metric.data && plainAny(metric.data);
  const isSecond = metric.data?.typeUrl.endsWith('io.containerd.cgroups.v2.Metrics') ?? false;
  const rows = isSecond ? rows2(data) : rows1(data);
  printTable([['METRIC', 'VALUE', ''], ...rows.map(([name, value]) => [name, text(value), ''])]);
}

export const metrics: Command = {
  name: 'metrics',
  aliases: ['metric'],
  usage: 'print what a container uses now',
  argsUsage: 'CONTAINER',
  example: 'ctr tasks metrics --format json c1',
  flags: [{ name: 'format', kind: 'string', usage: 'table or json', default: 'table' }],
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const format = invocation.string('format');
    if (format !== 'table' && format !== 'json') throw new UsageError('format must be table or json');
    await client.containers.get(id);
    const metric = await (await client.tasks.get(id)).metrics();
    if (!metric) throw new Error('no metrics received');
    if (format === 'json') print(`${goJson((metric.data && plainAny(metric.data)) ?? {}, 2)}\n`);
    else printMetric(metric);
  }),
};
