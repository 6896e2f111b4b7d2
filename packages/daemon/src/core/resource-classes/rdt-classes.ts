import { invalidArgument, StatusError } from '@gantry/api';
import { readRdtDocument } from '../rdt/rdt-document.ts';
import { type ClassSchemata, classSchemata, isClassName, rootClass } from '../rdt/rdt-schemata.ts';
import { openResctrl } from '../rdt/resctrl.ts';
import { groupOf, isGroup, writeGroups } from '../rdt/write-groups.ts';
import { readDocument } from './read-document.ts';

/** Where the class of a container was named. */
export type ClassOrigin = 'pod' | 'container';

/** Groups of the kernel's resctrl file system as classes. */
export class RdtClasses {
  readonly #directory: string;
  readonly #rules: ReadonlyMap<string, ClassSchemata['rules']>;

  /** @param rules by class: who may name it. One that is not there anybody may name */
  constructor(directory: string, rules: ReadonlyMap<string, ClassSchemata['rules']>) {
    this.#directory = directory;
    this.#rules = rules;
  }

  /** @throws InvalidArgument for a class that is not there, or may not be named there */
  check(name: string, origin: ClassOrigin): void {
    if (!isClassName(name)) throw invalidArgument(`unqualified RDT class name "${name}"`);
    const group = groupOf({ directory: this.#directory }, name);
    if (!isGroup(group)) {
      throw invalidArgument(
        `RDT class not found: failed to get class "${name}" from resctrl fs: resctrl group not found for class "${name}" ("${group}")`,
      );
    }
    const rules = this.#rules.get(name === '' ? rootClass : name);
    if (origin === 'pod' ? !rules?.denyPodAnnotation : !rules?.denyContainerAnnotation) return;
    const where = origin === 'pod' ? 'Pod annotations' : 'Container annotation';
    throw invalidArgument(`RDT class "${name}" not allowed from ${where}`);
  }
}

/**
 * Has resctrl be as a file of goresctrl's says. @param mounts a file like /proc/mounts
 * @throws StatusError without resctrl, or for a file that cannot be read or makes no sense here: then nothing has been changed
 */
export async function openRdt(
  file: string,
  mounts: string,
  operations?: Parameters<typeof writeGroups>[2],
): Promise<RdtClasses> {
  const resctrl = within('RDT not enabled', () => openResctrl(mounts));
  const document = await readDocument(file);
  const read = within('failed to parse configuration data', () => readRdtDocument(document));
  const classes = within('invalid configuration', () => classSchemata(read, resctrl));
  within('resctrl configuration failed', () => writeGroups(resctrl, classes, operations));
  return new RdtClasses(resctrl.directory, new Map(classes.map(({ name, rules }) => [name, rules])));
}

function within<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw StatusError.wrap(error, what);
  }
}
