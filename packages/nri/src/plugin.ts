import { once } from 'node:events';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { StatusError, unavailable } from '@gantry/api';
import {
  type Container,
  type ContainerUpdate,
  Event,
  type LinuxResources,
  Plugin as PluginService,
  type PodSandbox,
  Runtime as RuntimeService,
  type StateChangeEvent,
  type ValidateContainerAdjustmentRequest,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { createClient, type Implementation, Multiplexer, TtrpcServer, ttrpcTransport } from '@gantry/rpc';
import { Adjustment } from './adjustment.ts';
import {
  defaultSocketPath,
  environment,
  nriVersion,
  PluginConnection,
  RuntimeConnection,
} from './connection-numbers.ts';
import { type EventName, eventMask, eventNumbers } from './events.ts';
import { checkIdentity } from './plugin-name.ts';

type Answer<T> = T | Promise<T>;
type PodHandler = (pod: PodSandbox) => Answer<void>;
type ContainerHandler = (pod: PodSandbox, container: Container) => Answer<void>;
// biome-ignore lint/suspicious/noConfusingVoidType: handlers that answer nothing are functions without a return
type Updates = readonly ContainerUpdate[] | undefined | void;

/** What a plugin does. It is told of those events only for which it has a handler. What a handler throws, the runtime is told. */
export interface PluginHandlers {
  /** Called first. May answer which of the events it wants. @param config the text of `/etc/nri/conf.d/[IDX-]NAME.conf` */
  configure?: (config: string, runtime: { name: string; version: string }) => Answer<EventName[] | undefined>;
  /** Called next, with all that is there. May answer new limits. */
  synchronize?: (pods: readonly PodSandbox[], containers: readonly Container[]) => Answer<Updates>;
  shutdown?: () => Answer<void>;
  runPodSandbox?: PodHandler;
  stopPodSandbox?: PodHandler;
  removePodSandbox?: PodHandler;
  updatePodSandbox?: (pod: PodSandbox, overhead: LinuxResources, resources: LinuxResources) => Answer<void>;
  postUpdatePodSandbox?: PodHandler;
  /** Fills in what is to be different about a container; may answer new limits for others. */
  createContainer?: (pod: PodSandbox, container: Container, adjust: Adjustment) => Answer<Updates>;
  postCreateContainer?: ContainerHandler;
  startContainer?: ContainerHandler;
  postStartContainer?: ContainerHandler;
  /** May answer limits in place of those asked for, and for others. */
  updateContainer?: (pod: PodSandbox, container: Container, resources: LinuxResources) => Answer<Updates>;
  postUpdateContainer?: ContainerHandler;
  stopContainer?: (pod: PodSandbox, container: Container) => Answer<Updates>;
  removeContainer?: ContainerHandler;
  /** Throws to refuse what all plugins together want of a container. */
  validateContainerAdjustment?: (request: ValidateContainerAdjustmentRequest) => Answer<void>;
}

export interface PluginOptions {
  /** Default: what the runtime that started this process says. */
  name?: string;
  /** Two digits: the place in the order of plugins. Default: as for `name`. */
  index?: string;
  /** Default `/var/run/nri/nri.sock`. */
  socketPath?: string;
  /** A connection that is there already. */
  connection?: Duplex;
}

/** A plugin that is connected to its runtime. */
export interface RunningPlugin {
  /** Settles when the connection has ended, or the runtime has told the plugin to. */
  readonly closed: Promise<void>;
  /** Changes limits of containers out of turn, and has others ended (containerd does not). @returns those that could not be changed */
  updateContainers(
    updates: readonly ContainerUpdate[],
    evictions?: readonly { containerId: string; reason: string }[],
  ): Promise<ContainerUpdate[]>;
  close(): void;
}

/**
 * Connects to the runtime and takes part from then on.
 * @throws InvalidArgument for a name or index that is none, Unavailable without a runtime, or its refusal
 */
export async function runPlugin(handlers: PluginHandlers, options: PluginOptions = {}): Promise<RunningPlugin> {
  const identity = {
    name: options.name ?? process.env[environment.name] ?? '',
    index: options.index ?? process.env[environment.index] ?? '',
  };
  checkIdentity(identity);
  const trunk = options.connection ?? (await connect(options.socketPath));
  const multiplexer = new Multiplexer(trunk);
  const closed = once(multiplexer.open(PluginConnection), 'close').then(() => undefined);
  const server = new TtrpcServer();
  server.add(
    PluginService,
    pluginService(handlers, () => multiplexer.close()),
  );
  server.serveConnection(multiplexer.open(PluginConnection));
  const runtime = createClient(RuntimeService, ttrpcTransport(multiplexer.open(RuntimeConnection)));
  try {
    await runtime.registerPlugin({ pluginName: identity.name, pluginIdx: identity.index, NRIVersion: nriVersion });
  } catch (reason) {
    multiplexer.close();
    throw StatusError.wrap(reason, `plugin ${identity.index}-${identity.name} was not taken`);
  }
  return {
    closed,
    updateContainers: async (updates, evictions = []) =>
      (await runtime.updateContainers({ update: [...updates], evict: [...evictions] })).failed,
    close: () => multiplexer.close(),
  };
}

async function connect(socketPath = defaultSocketPath): Promise<Duplex> {
  const inherited = process.env[environment.socket];
  if (inherited !== undefined) return new net.Socket({ fd: Number(inherited), readable: true, writable: true });
  const socket = net.connect(socketPath);
  try {
    await once(socket, 'connect');
  } catch (reason) {
    throw unavailable(`no runtime at ${socketPath}: ${(reason as Error).message}`, reason);
  }
  return socket;
}

/** A handler of one expression answers what that comes to, the adjustment for example: that is no list, and asks for nothing. */
function asUpdates(answer: unknown): ContainerUpdate[] {
  return Array.isArray(answer) ? answer : [];
}

function pluginService(handlers: PluginHandlers, close: () => void): Implementation<typeof PluginService> {
  const pods: PodSandbox[] = [];
  const containers: Container[] = [];
  const updates = async (answer: Answer<Updates>): Promise<{ update: ContainerUpdate[] }> => ({
    update: asUpdates(await answer),
  });
  return {
    async configure({ config, runtimeName, runtimeVersion }) {
      const handled = (Object.keys(eventNumbers) as EventName[]).filter((name) => handlers[name]);
      const wanted = await handlers.configure?.(config, { name: runtimeName, version: runtimeVersion });
      return { events: eventMask(wanted ?? handled) };
    },
    async synchronize({ pods: somePods, containers: someContainers, more }) {
      // They come in as many messages as they need.
      pods.push(...somePods);
      containers.push(...someContainers);
      if (more) return { update: [], more };
      return updates(handlers.synchronize?.(pods.splice(0), containers.splice(0)));
    },
    async shutdown() {
      await handlers.shutdown?.();
      setImmediate(close);
      return {};
    },
    runPodSandbox: async ({ pod }) => {
      await handlers.runPodSandbox?.(pod!);
      return {};
    },
    async updatePodSandbox({ pod, overheadLinuxResources, linuxResources }) {
      await handlers.updatePodSandbox?.(pod!, overheadLinuxResources!, linuxResources!);
      return {};
    },
    async postUpdatePodSandbox({ pod }) {
      await handlers.postUpdatePodSandbox?.(pod!);
      return {};
    },
    async stopPodSandbox({ pod }) {
      await handlers.stopPodSandbox?.(pod!);
      return {};
    },
    async removePodSandbox({ pod }) {
      await handlers.removePodSandbox?.(pod!);
      return {};
    },
    async createContainer({ pod, container }) {
      const adjustment = new Adjustment();
      const { update } = await updates(handlers.createContainer?.(pod!, container!, adjustment));
      return adjustment.isEmpty ? { update } : { adjust: adjustment.message, update };
    },
    async postCreateContainer({ pod, container }) {
      await handlers.postCreateContainer?.(pod!, container!);
      return {};
    },
    async startContainer({ pod, container }) {
      await handlers.startContainer?.(pod!, container!);
      return {};
    },
    async postStartContainer({ pod, container }) {
      await handlers.postStartContainer?.(pod!, container!);
      return {};
    },
    updateContainer: ({ pod, container, linuxResources }) =>
      updates(handlers.updateContainer?.(pod!, container!, linuxResources!)),
    async postUpdateContainer({ pod, container }) {
      await handlers.postUpdateContainer?.(pod!, container!);
      return {};
    },
    stopContainer: ({ pod, container }) => updates(handlers.stopContainer?.(pod!, container!)),
    async removeContainer({ pod, container }) {
      await handlers.removeContainer?.(pod!, container!);
      return {};
    },
    async stateChange(event) {
      await stateChange(handlers, event);
      return {};
    },
    async validateContainerAdjustment(request) {
      try {
        await handlers.validateContainerAdjustment?.(request);
        return {};
      } catch (reason) {
        return { reject: true, reason: reason instanceof Error ? reason.message : String(reason) };
      }
    },
  };
}

/** How runtimes before 0.12 tell of what needs no answer. */
async function stateChange(handlers: PluginHandlers, { event, pod, container }: StateChangeEvent): Promise<void> {
  switch (event) {
    case Event.RUN_POD_SANDBOX:
      return handlers.runPodSandbox?.(pod!);
    case Event.STOP_POD_SANDBOX:
      return handlers.stopPodSandbox?.(pod!);
    case Event.REMOVE_POD_SANDBOX:
      return handlers.removePodSandbox?.(pod!);
    case Event.POST_UPDATE_POD_SANDBOX:
      return handlers.postUpdatePodSandbox?.(pod!);
    case Event.POST_CREATE_CONTAINER:
      return handlers.postCreateContainer?.(pod!, container!);
    case Event.START_CONTAINER:
      return handlers.startContainer?.(pod!, container!);
    case Event.POST_START_CONTAINER:
      return handlers.postStartContainer?.(pod!, container!);
    case Event.POST_UPDATE_CONTAINER:
      return handlers.postUpdateContainer?.(pod!, container!);
    case Event.REMOVE_CONTAINER:
      return handlers.removeContainer?.(pod!, container!);
    default:
      return;
  }
}
