import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, toTimestamp } from '@gantry/api';
import type { SandboxSchema, Sandbox as WireSandbox } from '@gantry/api/gen/types/sandbox_pb.js';
import type { Sandbox, SandboxInput } from './sandbox-store.ts';

/** A sandbox from a protobuf message, without its times. @throws InvalidArgument if there is none */
export function fromWireSandbox(sandbox: WireSandbox | undefined): SandboxInput {
  if (!sandbox) throw invalidArgument('sandbox must be given: invalid argument');
  return {
    id: sandbox.sandboxId,
    labels: { ...sandbox.labels },
    runtime: { name: sandbox.runtime?.name ?? '', options: sandbox.runtime?.options },
    spec: sandbox.spec,
    sandboxer: sandbox.sandboxer,
    extensions: { ...sandbox.extensions },
  };
}

/** What a protobuf sandbox is made of. */
export function toWireSandbox(
  sandbox: SandboxInput & Partial<Pick<Sandbox, 'createdAt' | 'updatedAt'>>,
): MessageInitShape<typeof SandboxSchema> {
  const { name, options } = sandbox.runtime;
  return {
    sandboxId: sandbox.id,
    runtime: { name, ...(options && { options }) },
    ...(sandbox.spec && { spec: sandbox.spec }),
    labels: sandbox.labels,
    ...(sandbox.createdAt && { createdAt: toTimestamp(sandbox.createdAt) }),
    ...(sandbox.updatedAt && { updatedAt: toTimestamp(sandbox.updatedAt) }),
    extensions: sandbox.extensions,
    sandboxer: sandbox.sandboxer,
  };
}
