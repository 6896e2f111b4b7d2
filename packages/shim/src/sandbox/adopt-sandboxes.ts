import { adoptContainer, removeHalfMade } from '../adopt.ts';
import { endInFlight } from '../in-flight.ts';
import { log } from '../log.ts';
import { readRecord } from '../record.ts';
import { unpinNamespaces } from './pinned-namespaces.ts';
import { Sandbox } from './sandbox.ts';
import { readSandboxRecord, removeSandboxRecord } from './sandbox-record.ts';
import type { Sandboxes } from './sandbox-service.ts';

/**
 * Takes over the sandboxes that an earlier shim of this group left: mounted namespaces are still there, processes are followed again,
 * and what was being made or removed is removed. Runs before anything is served.
 */
export async function adoptSandboxes(sandboxes: Sandboxes): Promise<void> {
  const { context } = sandboxes;
  await Promise.all(
    context.index.list().map(async ({ namespace, id, bundle }) => {
      try {
        const record = readSandboxRecord(bundle);
        if (!record) {
          context.index.remove(namespace, id);
          return;
        }
        const settled = record.state !== 'making' && record.state !== 'ending';
        const process = record.process ? readRecord(bundle) : undefined;
        if (process && process.inFlight !== '') await endInFlight(bundle, process.inFlight);
        if (settled && (!record.process || process?.init)) {
          const container = process && (await adoptContainer(context, process));
          sandboxes.add(new Sandbox(context, record, container));
          log.info('sandbox adopted', { namespace, id });
          return;
        }
        if (process) await removeHalfMade(context, process);
        await unpinNamespaces(bundle);
        removeSandboxRecord(bundle);
        context.index.remove(namespace, id);
        log.info('half-made sandbox removed', { namespace, id });
      } catch (error) {
        log.error('taking over a sandbox failed', { namespace, id, error });
      }
    }),
  );
}
