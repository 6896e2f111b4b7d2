import { notFound } from '@gantry/api';
import type { CdiRegistry } from './cdi-registry.ts';

/** Knows no devices. */
export const noCdiDevices: CdiRegistry = {
  async inject(_spec, devices) {
    if (devices.length > 0) throw notFound(`unresolvable CDI devices ${devices.join(', ')}: not found`);
  },
  close: () => undefined,
};
