import type { RangeOptions } from '@gantry/registry';
import type { RegistryEndpoint } from './endpoints.ts';
import type { TransferEnvironment } from './environment.ts';

/**
 * In which ranges large layers are asked for: as the transfer says, else as the daemon is set. undefined: whole, as with
 * containerd, which takes a buffer of 512 bytes or less for none.
 */
export function rangesOf(
  { layerFetch }: TransferEnvironment,
  { layerFetchBuffer }: RegistryEndpoint,
): RangeOptions | undefined {
  const size = layerFetchBuffer > 0 ? layerFetchBuffer : layerFetch.buffer;
  return size > 512 ? { size, concurrency: layerFetch.concurrency } : undefined;
}
