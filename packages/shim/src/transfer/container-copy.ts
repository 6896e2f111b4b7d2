import { MessageChannel } from 'node:worker_threads';
import { canceled } from '@gantry/api';
import type { ContainerPath } from '@gantry/api/gen/types/transfer/container_pb.js';
import { chunksFromPort, pumpToPort } from '@gantry/archive/port-chunks.ts';
import { WorkerPool } from '@gantry/archive/worker-pool.ts';
import { ByteSender, receiveBytes } from '@gantry/rpc/byte-stream.ts';
import type { MessageStream } from '@gantry/rpc/message-stream.ts';
import { close } from '@gantry/sys';
import type { Container } from '../container.ts';
import { openContainerRoot } from './container-root.ts';

/** Copies are rare: the thread for them ends soon after the last. */
const pool = new WorkerPool({ size: 2, idleAfter: 2000 });

/** Sends a tar of a path of the container, and ends the stream. */
export async function copyOut(
  container: Container,
  { path, noWalk }: ContainerPath,
  stream: MessageStream,
  signal: AbortSignal,
): Promise<void> {
  const sender = new ByteSender(stream, signal);
  try {
    const { fd: root, ids } = openContainerRoot(container);
    try {
      const { port1, port2 } = new MessageChannel();
      const packed = pool.run('pack-tree', { root, path, noWalk, ids, port: port1 }, { signal, transfer: [port1] });
      packed.catch(() => undefined);
      try {
        for await (const chunk of chunksFromPort(port2, signal)) await sender.write(chunk);
      } catch (error) {
        if (error instanceof DOMException) throw canceled('the client closed its stream', error);
        await packed;
        throw error;
      }
      await packed;
    } finally {
      close(root);
    }
  } finally {
    sender.close();
  }
}

/** Unpacks the tar that comes on the stream at a path of the container. */
export async function copyIn(
  container: Container,
  { path, preserveOwnership }: ContainerPath,
  stream: MessageStream,
  signal: AbortSignal,
): Promise<void> {
  const { fd: root, ids } = openContainerRoot(container);
  try {
    const { port1, port2 } = new MessageChannel();
    const source = { kind: 'port', port: port1 };
    const params = { root, path, preserveOwnership, ids, source };
    const unpacked = pool.run('unpack-tree', params, { signal, transfer: [port1] });
    const [pumped, done] = await Promise.allSettled([pumpToPort(receiveBytes(stream, signal), port2), unpacked]);
    if (pumped.status === 'rejected') throw pumped.reason;
    if (done.status === 'rejected') throw done.reason;
  } finally {
    close(root);
    stream.close();
  }
}
