import { unpinNamespaces } from './pinned-namespaces.ts';
import { readSandboxRecord, removeSandboxRecord, type SandboxRecord } from './sandbox-record.ts';

/** Ends a sandbox without its shim: its namespaces are unmounted. A process of its own is removed as a container. */
export async function removeSandbox(bundle: string): Promise<SandboxRecord | undefined> {
  const record = readSandboxRecord(bundle);
  if (!record) return undefined;
  await unpinNamespaces(bundle);
  removeSandboxRecord(bundle);
  return record;
}
