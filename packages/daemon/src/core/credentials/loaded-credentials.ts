import { failedPrecondition } from '@gantry/api';
import type { CredentialsProvider } from '@gantry/registry';
import type { PluginContext } from '../plugin/plugin.ts';
import { PluginTypes } from '../plugin/plugin-types.ts';

/**
 * The daemon's own credentials; undefined if none are configured. If they are and could not be set up, asking is an error:
 * going on as nobody would be refused for a reason that nobody sees.
 */
export function loadedCredentials(
  context: Pick<PluginContext<unknown>, 'all' | 'statuses'>,
): CredentialsProvider | undefined {
  for (const { type, id, error } of context.statuses()) {
    if (type !== PluginTypes.Credentials || !error || error.skip) continue;
    return () => Promise.reject(failedPrecondition(`credentials plugin ${id} did not start: ${error.message}`));
  }
  const [provider] = context.all(PluginTypes.Credentials).values();
  return provider && ((request, signal) => provider.get(request, signal));
}

/** Asks the first, and the second where the first has nothing. */
export function eitherCredentials(
  first: CredentialsProvider | undefined,
  second: CredentialsProvider | undefined,
): CredentialsProvider | undefined {
  if (!first || !second) return first ?? second;
  return async (request, signal) => (await first(request, signal)) ?? (await second(request, signal));
}
