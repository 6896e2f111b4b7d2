import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { failedPrecondition, StatusError, unavailable } from '@gantry/api';
import { connectInside } from '@gantry/cni/connect-inside.ts';
import { type Cri, criContext } from '../cri.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { RemoteStreams, StreamingRuntime } from '../streaming/streaming-server.ts';
import { usesHostNetwork } from '../verbs/run-pod-sandbox.ts';
import { execProcess, runningContainer } from './exec-process.ts';

/** How far a client may be behind its container, bytes: one that does not read must hold up neither container nor log. */
const mostBehind = 16 << 20;

/** What clients of the streaming server get: processes, a container's own streams, and ports of pods. */
export function streamingRuntime(cri: Cri): StreamingRuntime {
  return {
    exec: (containerId, command, streams) =>
      execProcess(cri, runningContainer(cri, containerId), { ...streams, command }).catch((error: unknown) => {
        throw StatusError.wrap(error, 'failed to exec in container');
      }),
    attach: (containerId, streams) => attach(cri, runningContainer(cri, containerId), streams),
    portForward: (sandboxId, port, stream) => portForward(cri, sandboxId, port, stream),
  };
}

async function attach(cri: Cri, container: CriContainer, streams: RemoteStreams): Promise<void> {
  const { io, metadata } = container;
  if (!io) throw failedPrecondition(`container "${container.id}" has no streams to attach to`);
  const task = cri.tasks.get(criContext(), container.id);
  const { promise: over, resolve, reject } = Promise.withResolvers<void>();
  const end = (reason?: Error): void => (reason ? reject(reason) : resolve());
  let behind = 0;
  const outputs = { stdout: streams.stdout, stderr: streams.stderr };
  let last = Promise.resolve();
  const stop = io.follow((name, bytes) => {
    const take = outputs[name];
    if (!take) return;
    behind += bytes.length;
    if (behind > mostBehind) return end(unavailable('the client does not read what the container writes'));
    last = last
      .then(() => take(bytes))
      .then(
        () => {
          behind -= bytes.length;
        },
        () => end(),
      );
  }, end);
  streams.signal.addEventListener('abort', () => end(), { once: true });
  if (streams.signal.aborted) end();
  void resize(streams, (width, height) => task.resizePty('', width, height));
  // The shim holds the other end open too, until it is told that there will be no more.
  const closeInput = async (): Promise<void> => {
    io.closeStdin();
    await task.closeIo('', true).catch((error) => cri.log.debug('input is not closed', { error, id: container.id }));
  };
  // A terminal's input is never over. Where it can be, the first client's is all that there will be.
  const once = metadata.config.stdinOnce && !streams.terminal && streams.stdin !== undefined;
  const input = copyInput(container, streams)
    .catch((error) => cri.log.debug('input of attach', { error, id: container.id }))
    .then(async () => {
      if (once) await closeInput();
      // As with containerd, a client that has no more to say goes, unless that is told to the container.
      else if (streams.stdin && metadata.config.stdin) end();
    });
  try {
    // Without outputs it is over with its input.
    await (streams.stdout || streams.stderr ? over : Promise.race([over, input]));
    await last;
  } finally {
    stop();
    if (once) await closeInput();
  }
}

async function copyInput({ io, metadata }: CriContainer, { stdin }: RemoteStreams): Promise<void> {
  if (!stdin || !io || !metadata.config.stdin) return;
  for await (const bytes of stdin) await io.writeStdin(bytes);
}

async function resize(streams: RemoteStreams, apply: (width: number, height: number) => Promise<void>): Promise<void> {
  if (!streams.resize) return;
  try {
    for await (const { width, height } of streams.resize) await apply(width, height).catch(() => undefined);
  } catch {
    // The client went.
  }
}

async function portForward(cri: Cri, sandboxId: string, port: number, stream: Duplex): Promise<void> {
  const sandbox = cri.sandboxes.get(sandboxId);
  if (sandbox.status.state !== 'ready') throw failedPrecondition(`sandbox container "${sandbox.id}" is not running`);
  const { netnsPath, config } = sandbox.metadata;
  const where = usesHostNetwork(config) ? '' : netnsPath;
  let inside: Duplex;
  try {
    inside = await connectInside(where, port);
  } catch (error) {
    throw StatusError.wrap(error, `failed to connect to localhost:${port} inside namespace "${sandbox.id}"`);
  }
  // Each way ends by itself: a client that has said all still hears the answer, and with the answer all is said.
  pipeline(stream, inside).catch(() => undefined);
  try {
    await pipeline(inside, stream);
  } catch (error) {
    // The client went, or the program inside did in the middle: the connection ends, which is all there is to say.
    cri.log.debug('port-forward', { error, id: sandbox.id, port });
  } finally {
    inside.destroy();
  }
}
