import { exists } from './layer-files.ts';

/** Whether the kernel has the device-mapper target. */
export function hasDmVerity(): Promise<boolean> {
  return exists('/sys/module/dm_verity');
}
