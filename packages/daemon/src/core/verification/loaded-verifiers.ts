import { failedPrecondition } from '@gantry/api';
import type { PluginContext } from '../plugin/plugin.ts';
import { PluginTypes } from '../plugin/plugin-types.ts';
import type { ImageVerifier } from './image-verifier.ts';

/** All verifiers of the daemon. One that is configured and did not start blocks: what it would have said is not known. */
export function loadedVerifiers(context: Pick<PluginContext<unknown>, 'all' | 'statuses'>): Map<string, ImageVerifier> {
  const verifiers = new Map(context.all(PluginTypes.ImageVerifier));
  for (const { type, id, error } of context.statuses()) {
    if (type !== PluginTypes.ImageVerifier || !error || error.skip) continue;
    verifiers.set(id, {
      verifyImage: () => Promise.reject(failedPrecondition(`it did not start: ${error.message}`)),
    });
  }
  return verifiers;
}
