import type { RuntimeSpec } from '../spec/runtime-spec.ts';

/** Devices by the Container Device Interface: names of the form `vendor.com/class=device`, found in specification directories. */
export interface CdiRegistry {
  /**
   * Makes the edits of these devices in a specification. @throws InvalidArgument for a name that is none, NotFound
   * `unresolvable CDI devices …` for those in no directory
   */
  inject(spec: RuntimeSpec, devices: readonly string[]): Promise<void>;
  close(): void;
}
