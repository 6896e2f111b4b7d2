import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { unknown } from '@gantry/api';
import { hasErrno } from '@gantry/sys';
import { type ClassSchemata, rootClass } from './rdt-schemata.ts';
import { type Resctrl, refusal } from './resctrl.ts';

/** How groups come and go: in resctrl a directory that is removed takes with it what the kernel shows in there. */
export interface GroupOperations {
  make(directory: string): void;
  remove(directory: string): void;
}

const resctrlOperations: GroupOperations = { make: mkdirSync, remove: rmdirSync };

/** The directory of a class's group. */
export function groupOf({ directory }: Pick<Resctrl, 'directory'>, name: string): string {
  return name === rootClass || name === '' ? directory : path.join(directory, name);
}

/** Whether a directory is a group of resctrl's. */
export function isGroup(directory: string): boolean {
  return statSync(path.join(directory, 'tasks'), { throwIfNoEntry: false })?.isFile() ?? false;
}

/**
 * Makes resctrl as the configuration says: groups that no class names are removed (their processes go to the root group), those
 * that are missing made, and every class's schemata written; groups that only monitor go where nothing is in them.
 * @throws Unknown with what the kernel says where it refuses
 */
export function writeGroups(resctrl: Resctrl, classes: readonly ClassSchemata[], operations = resctrlOperations): void {
  const { directory } = resctrl;
  const names = new Set(classes.map(({ name }) => name));
  for (const name of groupsIn(directory)) {
    if (names.has(name)) continue;
    attempt(directory, `failed to remove resctrl group "${name}"`, () => operations.remove(path.join(directory, name)));
  }
  for (const { name, schemata } of classes) {
    const group = groupOf(resctrl, name);
    if (!isGroup(group)) {
      attempt(directory, `failed to create resctrl group "${name}"`, () => makeGroup(group, operations));
    }
    if (schemata === '') continue;
    attempt(directory, `failed to write ${JSON.stringify(schemata)} to resctrl group "${name}"`, () =>
      writeFileSync(path.join(group, 'schemata'), schemata),
    );
  }
  for (const group of [directory, ...groupsIn(directory).map((name) => path.join(directory, name))]) {
    dropIdleMonitors(directory, path.join(group, 'mon_groups'), operations);
  }
}

function makeGroup(group: string, operations: GroupOperations): void {
  try {
    operations.make(group);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
  }
}

function dropIdleMonitors(directory: string, monitors: string, operations: GroupOperations): void {
  if (!existsSync(monitors)) return;
  for (const name of groupsIn(monitors)) {
    const group = path.join(monitors, name);
    if (readFileSync(path.join(group, 'tasks'), 'utf8').trim() !== '') continue;
    attempt(directory, `failed to remove monitoring group "${group}"`, () => operations.remove(group));
  }
}

function groupsIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => isGroup(path.join(directory, name)));
}

function attempt(directory: string, what: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    throw unknown(`${what}: ${refusal(directory, error)}`, error);
  }
}
