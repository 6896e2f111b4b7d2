import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { invalidArgument, unknown } from '@gantry/api';
import { readDocument } from './resource-classes.ts';

/** Where the class of a container was named. */
export type ClassOrigin = 'pod' | 'container';

const rootClass = 'system/default';

/** Groups of the kernel's resctrl file system as classes. */
export class RdtClasses {
  readonly #directory: string;
  readonly #denied: ReadonlySet<string>;

  /** @param denied `origin name` of classes that may not be named there */
  constructor(directory: string, denied: ReadonlySet<string>) {
    this.#directory = directory;
    this.#denied = denied;
  }

  /** @throws InvalidArgument for a class that is not there, or may not be named there */
  check(name: string, origin: ClassOrigin): void {
    const root = name === rootClass || name === '';
    if (!root && (name.length >= 4096 || name === '.' || name === '..' || /[/\n]/.test(name)))
      throw invalidArgument(`unqualified RDT class name "${name}"`);
    const group = root ? this.#directory : path.join(this.#directory, name);
    if (!existsSync(path.join(group, 'schemata'))) {
      throw invalidArgument(
        `RDT class not found: failed to get class "${name}" from resctrl fs: resctrl group not found for class "${name}" ("${group}")`,
      );
    }
    if (!this.#denied.has(`${origin} ${name}`)) return;
    const where = origin === 'pod' ? 'Pod annotations' : 'Container annotation';
    throw invalidArgument(`RDT class "${name}" not allowed from ${where}`);
  }
}

interface RdtDocument {
  partitions?: Record<
    string,
    {
      classes?: Record<string, { kubernetes?: { denyPodAnnotation?: boolean; denyContainerAnnotation?: boolean } }>;
    }
  >;
}

/** @throws Unknown without resctrl, or for a file that cannot be read */
export async function openRdt(file: string, mounts: string): Promise<RdtClasses> {
  const directory = resctrlDirectory(mounts);
  if (directory === undefined) {
    throw unknown(`RDT not enabled: failed to detect resctrl mount point: resctrl not found in ${mounts}`);
  }
  const { partitions = {} } = ((await readDocument(file)) ?? {}) as RdtDocument;
  const denied = new Set<string>();
  for (const { classes = {} } of Object.values(partitions)) {
    for (const [name, settings] of Object.entries(classes)) {
      if (settings?.kubernetes?.denyPodAnnotation) denied.add(`pod ${name}`);
      if (settings?.kubernetes?.denyContainerAnnotation) denied.add(`container ${name}`);
    }
  }
  return new RdtClasses(directory, denied);
}

function resctrlDirectory(mounts: string): string | undefined {
  const lines = readFileSync(mounts, 'utf8').split('\n');
  return lines.map((line) => line.split(' ')).find((fields) => fields[2] === 'resctrl')?.[1];
}
