import { rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { descriptorStoreVariable } from '@gantry/api';
import { traceServerCalls } from '@gantry/rpc/trace-calls.ts';
import { TtrpcServer } from '@gantry/rpc/ttrpc-server.ts';
import { listenUnix } from '@gantry/rpc/unix-listener.ts';
import { PR, prctl } from '@gantry/sys';
import { keepHeapSmall, returnMemoryWhenIdle } from '@gantry/sys/idle-memory.ts';
import { tracingSettings } from '@gantry/tracing';
import { tryLock } from './abstract-lock.ts';
import { adoptContainers } from './adopt.ts';
import { removeByForce } from './container-create.ts';
import { serveControl } from './control-server.ts';
import { DaemonLog } from './daemon-log.ts';
import { DescriptorKeeper } from './descriptor-keeper.ts';
import type { ShimFlags } from './flags.ts';
import { groupPathsOfSocket, takenMessage } from './grouping.ts';
import { Lifetime } from './lifetime.ts';
import { alsoLogTo, log, logFormat, setDebug } from './log.ts';
import { removeEmptyRoots } from './oci-runtime.ts';
import { Publisher } from './publisher.ts';
import { Reaper } from './reaper.ts';
import { ContainerIndex } from './record.ts';
import { adoptSandboxes } from './sandbox/adopt-sandboxes.ts';
import { addSandboxService, Sandboxes } from './sandbox/sandbox-service.ts';
import type { ShimContext } from './shim-context.ts';
import { finishing } from './stdio/pump.ts';
import { addTaskServices, Containers } from './task-service.ts';
import { addTransferServices } from './transfer/transfer-service.ts';
import { shimVersion } from './version.ts';

const defaultLingerMs = 2000;
const reservationMs = 30_000;
/** How long the last events may take to reach the daemon when the process ends. */
const flushMs = 5000;

/** The server process of a group: what `start` has daemonised. Descriptor 3 is told when it serves, or why it does not. */
export async function serve(flags: ShimFlags): Promise<void> {
  try {
    await startServing(flags);
    tell('ready\n');
  } catch (error) {
    tell(`${(error as Error).message}\n`);
    log.error('start failed', { error });
    process.exit(1);
  }
}

function tell(text: string): void {
  try {
    writeSync(3, text);
  } catch {
    // Nobody waits: started by hand.
  }
}

async function startServing(flags: ShimFlags): Promise<void> {
  setDebug(flags.debug);
  keepHeapSmall();
  // A fault is one container's: whatever escapes its handler is noted and the others go on.
  process.on('uncaughtException', (error) => log.error('uncaught exception', { error }));
  process.on('unhandledRejection', (error) => log.error('unhandled rejection', { error }));
  // The daemon ends us by Shutdown; signals meant for it must not take the containers' supervisor along.
  for (const signal of ['SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => {});
  prctl(PR.SET_NAME, 'gantry-shim');
  process.title = `gantry-shim -namespace ${flags.namespace} -address ${flags.address}`;

  const paths = groupPathsOfSocket(flags.socket);
  const serving = await tryLock(paths.serving);
  if (!serving) throw new Error(takenMessage);
  serving.unref();
  const stopTracing = await startTracing();
  const reaper = new Reaper();
  const publisher = new Publisher(process.env['TTRPC_ADDRESS'] ?? '');
  const index = new ContainerIndex(paths.containers);
  const containers = new Containers();
  const keeper = new DescriptorKeeper(process.env[descriptorStoreVariable] ?? '', () => {
    for (const container of containers.values()) container.keepAgain();
  });
  const context: ShimContext = {
    reaper,
    publisher,
    index,
    keeper,
    socketDir: path.dirname(paths.socket),
    control: paths.control,
  };
  const sandboxes = new Sandboxes(context, paths.sandboxes);
  const daemonLog = new DaemonLog(function* bundles() {
    yield process.env['GANTRY_SHIM_BUNDLE'] ?? '/';
    for (const { identity } of containers.values()) yield identity.bundle;
    for (const { bundle } of sandboxes.values()) yield bundle;
  });
  alsoLogTo((line) => daemonLog.write(line));
  const end = (): void => {
    log.info('shim ends');
    void Promise.all([publisher.flush(flushMs), stopTracing?.()]).then(() => {
      // Removed by name, and then no orderly exit: closing the sockets would remove the names again, from a successor perhaps.
      index.dispose();
      sandboxes.context.index.dispose();
      removeEmptyRoots();
      for (const file of [paths.socket, paths.control, paths.watch, paths.log]) rmSync(file, { force: true });
      process.kill(process.pid, 'SIGKILL');
    });
  };
  const lifetime = new Lifetime({
    containers: () => containers.size + sandboxes.size + finishing.size,
    lingerMs: numberFrom(process.env['GANTRY_SHIM_LINGER_MS'], defaultLingerMs),
    reservationMs,
    onEnd: end,
  });
  finishing.onEmpty = () => lifetime.check();
  process.on('SIGTERM', () => lifetime.shutdown(true));

  reaper.start();
  keeper.connect();
  await adoptContainers(context, containers);
  await adoptSandboxes(sandboxes);

  const isHere = (namespace: string, id: string) =>
    Boolean(containers.find(namespace, id) ?? sandboxes.find(namespace, id));
  const rpc = new TtrpcServer({ logger: log, interceptors: stopTracing ? [traceServerCalls] : [] });
  addTaskServices(rpc, context, containers, lifetime, flags.namespace);
  addSandboxService(rpc, sandboxes, lifetime, flags.namespace);
  addTransferServices(rpc, containers, lifetime, flags.namespace);
  const listener = createServer((socket) => {
    lifetime.connected();
    keeper.connect();
    socket.once('close', () => lifetime.disconnected());
    rpc.serveConnection(socket);
  });
  await listenUnix(listener, paths.socket, { mode: 0o600 });
  await serveControl(paths.control, {
    // A container that is here already (adopted, say) keeps the process by itself.
    reserve: (namespace, id) => (isHere(namespace, id) ? !lifetime.closing : lifetime.reserve(namespace, id)),
    forget: (namespace, id) => {
      const container = containers.find(namespace, id);
      container?.dispose();
      if (container) containers.remove(container);
      const sandbox = sandboxes.find(namespace, id);
      if (sandbox) sandboxes.remove(sandbox);
      lifetime.check();
    },
    remove: async (namespace, id) => {
      const container = containers.find(namespace, id);
      if (!container) return false;
      await removeByForce(container);
      containers.remove(container);
      lifetime.check();
      return true;
    },
    variables: () => ({
      namespace: flags.namespace,
      socket: paths.socket,
      containers: containers.size,
      sandboxes: sandboxes.size,
    }),
  });
  void watchThread(paths.watch);
  returnMemoryWhenIdle();
  if (!isHere(flags.namespace, flags.id)) lifetime.reserve(flags.namespace, flags.id);
  log.info('shim serves', { address: paths.socket, namespace: flags.namespace, pid: process.pid });
}

function numberFrom(text: string | undefined, otherwise: number): number {
  const value = Number(text);
  return text !== undefined && text !== '' && Number.isFinite(value) && value >= 0 ? value : otherwise;
}

/** Traces what the environment asks for, which is the daemon's. @returns what sends the last of it; undefined if nothing is traced */
async function startTracing(): Promise<(() => Promise<void>) | undefined> {
  try {
    const settings = tracingSettings(process.env);
    if ('off' in settings) return undefined;
    const { otlpProcessor, startOpenTelemetry } = await import('@gantry/tracing/open-telemetry.ts');
    return startOpenTelemetry({
      serviceName: 'gantry-shim',
      serviceVersion: shimVersion,
      processors: [await otlpProcessor(settings, process.env)],
      environment: process.env,
      warn: (message) => log.warn('traces', { error: message }),
    });
  } catch (error) {
    // Containers matter more than what is told of them.
    log.error('no traces', { error });
    return undefined;
  }
}

/** Where the daemon has a debug socket, a thread of ours can tell where the main one is when that answers nobody. */
async function watchThread(socket: string): Promise<void> {
  const setting = process.env['GANTRY_SHIM_WATCH_MS'];
  if (!setting) return;
  try {
    const { watchMainThread } = await import('@gantry/sys/debug/thread-watch.ts');
    await watchMainThread({ socket, blockedAfterMs: numberFrom(setting, 0), logFormat });
  } catch (error) {
    log.warn('the main thread is not watched', { error });
  }
}
