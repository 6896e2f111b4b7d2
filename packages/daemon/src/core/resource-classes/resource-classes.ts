import { globSync, realpathSync, statSync } from 'node:fs';
import { StatusError, unknown } from '@gantry/api';
import { deviceNumbers } from '@gantry/oci';
import { type BlockDevice, type BlockIo, blockIoClasses } from '@gantry/oci/spec/block-io.ts';
import type { Logger } from '../log/logger.ts';
import { openRdt, type RdtClasses } from './rdt-classes.ts';
import { readDocument } from './read-document.ts';

export interface ResourceClassFiles {
  /** `blockio_config_file`; '' for none. */
  blockio: string;
  /** `rdt_config_file`. */
  rdt: string;
}

/** Classes that containers can be put in: of block I/O, and of cache and memory bandwidth (RDT). Absent: not enabled. */
export interface ResourceClasses {
  readonly blockio?: ReadonlyMap<string, BlockIo> | undefined;
  readonly rdt?: RdtClasses | undefined;
}

export const noClasses: ResourceClasses = {};

/** What goresctrl's files say. A file that cannot be used is told of, and its classes are not enabled, as with containerd. */
export async function openResourceClasses(
  { blockio, rdt }: ResourceClassFiles,
  log: Logger,
  mounts = '/proc/mounts',
): Promise<ResourceClasses> {
  const classes: { blockio?: ReadonlyMap<string, BlockIo>; rdt?: RdtClasses } = {};
  if (blockio !== '') {
    try {
      classes.blockio = await readBlockIo(blockio, log);
    } catch (error) {
      log.error('blockio initialization failed', { error: StatusError.wrap(error, 'blockio not enabled') });
    }
  }
  if (rdt !== '') {
    try {
      classes.rdt = await openRdt(rdt, mounts);
      log.info('RDT: resctrl is as the configuration says', { rdt });
    } catch (error) {
      log.error('RDT initialization failed', { error });
    }
  }
  return classes;
}

/** A class that makes no sense is left out, and the others stay. */
async function readBlockIo(file: string, log: Logger): Promise<Map<string, BlockIo>> {
  const document = ((await readDocument(file)) ?? {}) as Record<string, unknown>;
  const odd = Object.keys(document).find((key) => key !== 'Classes');
  if (odd !== undefined) throw unknown(`failed to set configuration from file "${file}": unknown field "${odd}"`);
  const classes = new Map<string, BlockIo>();
  for (const [name, entries] of Object.entries((document['Classes'] ?? {}) as Record<string, unknown>)) {
    try {
      const [[, parameters]] = [...blockIoClasses({ Classes: { [name]: entries } }, devicesOf)] as [[string, BlockIo]];
      classes.set(name, parameters);
    } catch (error) {
      log.warn('ignoring blockio class', { class: name, error });
    }
  }
  return classes;
}

/** Block devices by a pattern, links followed, each once. */
function devicesOf(pattern: string): BlockDevice[] {
  const files = new Set(globSync(pattern).map((file) => realpathSync(file)));
  return [...files]
    .sort()
    .map((file) => statSync(file))
    .filter((info) => info.isBlockDevice())
    .map(({ rdev }) => deviceNumbers(rdev));
}
