// The parts of the live page's state, read from the daemon's own stores: nothing here changes anything.
import { readdirSync } from 'node:fs';
import type { Time } from '@gantry/api';
import { eventFields } from '../../core/events/event-lookup.ts';
import type { Envelope } from '../../core/events/exchange.ts';
import type { PluginContext } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { contextOf } from '../../core/request-context.ts';
import type { TaskService } from '../../core/tasks/task-service.ts';
import { version } from '../../core/version/version.ts';
import type { LiveSource, LiveSources } from './live-feed.ts';
import { UsageRates, usageOf } from './usage.ts';

const millis = ({ seconds, nanos }: Time): number => Number(seconds) * 1000 + Math.floor(nanos / 1e6);
/** As `containerd.v1.types.Status` numbers them. */
const statuses = ['unknown', 'created', 'running', 'stopped', 'paused', 'pausing'];

export function liveSources(context: PluginContext<unknown>): LiveSources {
  const { containers, images, namespaces, content } = context.get(PluginTypes.Metadata);
  const tasks = context.get(PluginTypes.Service, 'tasks-service') as TaskService;
  const warnings = context.get(PluginTypes.Warning, 'deprecations');
  const exchange = context.get(PluginTypes.Event);
  const rates = new UsageRates();
  const ownRates = new UsageRates();
  const began = Date.now() - process.uptime() * 1000;

  /** What `read` finds in every namespace, each with its name. */
  async function everywhere<T extends object>(
    read: (namespace: string) => Promise<T[]>,
  ): Promise<(T & { namespace: string })[]> {
    const names = await namespaces.list();
    const found = await Promise.all(
      names.map(async (namespace) => (await read(namespace)).map((one) => ({ ...one, namespace }))),
    );
    return found.flat();
  }

  const listContainers = async (namespace: string) => {
    const ctx = contextOf(namespace);
    const [records, states] = await Promise.all([containers.list(ctx), tasks.list(ctx)]);
    const byId = new Map(states.map((state) => [state.containerId, state]));
    return records.map(({ id, image, runtime, labels, createdAt }) => {
      const state = byId.get(id);
      return {
        id,
        image,
        runtime: runtime.name,
        labels,
        created: millis(createdAt),
        status: state ? (statuses[state.status] ?? 'unknown') : 'no task',
        pid: state?.pid ?? 0,
        exit: state?.status === 3 ? state.exitStatus : undefined,
      };
    });
  };

  const listImages = async (namespace: string) =>
    (await images.list(contextOf(namespace))).map(({ name, target, labels, updatedAt }) => ({
      name,
      digest: target.digest,
      type: target.mediaType,
      labels,
      updated: millis(updatedAt),
    }));

  const listTransfers = async () => {
    const transfers = [...context.all(PluginTypes.Transfer).values()].flatMap(({ active = [] }) =>
      [...active].map(({ namespace, from, to, startedAt, parts }) => ({
        namespace,
        from,
        to,
        started: startedAt,
        parts: [...parts.values()],
      })),
    );
    const names = new Set(transfers.flatMap(({ namespace, parts }) => parts.map(({ name }) => `${namespace} ${name}`)));
    // Those of clients that fetch by themselves.
    const ingests = await everywhere(async (namespace) =>
      (await content.listStatuses(contextOf(namespace))).map(({ ref, offset, total, startedAt }) => ({
        ref,
        offset,
        total,
        started: millis(startedAt),
      })),
    );
    return { transfers, ingests: ingests.filter(({ namespace, ref }) => !names.has(`${namespace} ${ref}`)) };
  };

  const sampleUsage = async () => {
    const samples = await everywhere(async (namespace) =>
      (await tasks.metrics(contextOf(namespace), [])).flatMap(({ id, data }) => {
        const usage = usageOf(data);
        return usage ? [{ id, usage }] : [];
      }),
    );
    return { at: Date.now(), samples: rates.add(performance.now(), samples) };
  };

  const sources: LiveSource[] = [
    {
      name: 'daemon',
      read: () => ({ ...version, pid: process.pid, began, address: context.daemon.address, root: context.daemon.root }),
    },
    {
      name: 'containers',
      stale: (topic) => /^\/(containers|tasks|namespaces)\//.test(topic),
      read: () => everywhere(listContainers),
    },
    {
      name: 'images',
      stale: (topic) => /^\/(images|namespaces)\//.test(topic),
      read: () => everywhere(listImages),
    },
    { name: 'transfers', always: true, read: listTransfers },
    { name: 'usage', always: true, read: sampleUsage },
    { name: 'process', always: true, read: () => ownUsage(ownRates) },
    {
      name: 'deprecations',
      always: true,
      read: () =>
        warnings.warnings().map(({ id, message, lastOccurrence }) => ({ id, message, last: millis(lastOccurrence) })),
    },
  ];
  return {
    sources,
    listen: (onEvent) =>
      exchange.listen((envelope) => {
        const { topic, namespace, timestamp } = envelope;
        onEvent(topic, { at: millis(timestamp), namespace, topic, detail: detailOf(envelope) });
      }),
  };
}

/** An event that cannot be read is shown without its fields: whoever published it must not be told of that. */
function detailOf(envelope: Envelope): unknown {
  try {
    return eventFields(envelope);
  } catch {
    return undefined;
  }
}

function ownUsage(rates: UsageRates): object {
  const { user, system } = process.cpuUsage();
  const usage = { cpuNs: (user + system) * 1000, memory: process.memoryUsage.rss(), memoryLimit: 0, pids: 0 };
  const { 'daemon/': sample } = rates.add(performance.now(), [{ namespace: 'daemon', id: '', usage }]);
  return { at: Date.now(), sample, descriptors: readdirSync('/proc/self/fd').length };
}
