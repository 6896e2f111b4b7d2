import { Containers } from '@gantry/api/gen/services/containers/v1/containers_pb.js';
import { Content } from '@gantry/api/gen/services/content/v1/content_pb.js';
import { Images } from '@gantry/api/gen/services/images/v1/images_pb.js';
import { Leases } from '@gantry/api/gen/services/leases/v1/leases_pb.js';
import { Namespaces } from '@gantry/api/gen/services/namespaces/v1/namespace_pb.js';
import { Store as Sandboxes } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import { Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { Tasks } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { createClient, grpcTransport } from '@gantry/rpc';

/** The raw services of one life of the daemon, in one namespace. */
export function connect(address: string, namespace: string) {
  const transport = grpcTransport(address, { namespace });
  return {
    containers: createClient(Containers, transport),
    content: createClient(Content, transport),
    images: createClient(Images, transport),
    leases: createClient(Leases, transport),
    namespaces: createClient(Namespaces, transport),
    sandboxes: createClient(Sandboxes, transport),
    snapshots: createClient(Snapshots, transport),
    tasks: createClient(Tasks, transport),
    transfer: createClient(Transfer, transport),
    ready: (timeoutMs: number) => transport.ready(timeoutMs),
    close: () => transport.close(),
  };
}

export type Connection = ReturnType<typeof connect>;

/** All of a server-streamed list. */
export async function gather<M, T>(answers: AsyncIterable<M>, items: (message: M) => readonly T[]): Promise<T[]> {
  const all: T[] = [];
  for await (const message of answers) all.push(...items(message));
  return all;
}
