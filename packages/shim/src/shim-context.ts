import type { DescriptorKeeper } from './descriptor-keeper.ts';
import type { Publisher } from './publisher.ts';
import type { Reaper } from './reaper.ts';
import type { ContainerIndex } from './record.ts';

/** What all containers of a shim process share. */
export interface ShimContext {
  readonly reaper: Reaper;
  readonly publisher: Publisher;
  readonly index: ContainerIndex;
  /** Where descriptors go that must outlive this process. */
  readonly keeper: DescriptorKeeper;
  /** Where console sockets are made. */
  readonly socketDir: string;
  /** The control socket's path, noted in each container's record. */
  readonly control: string;
}
