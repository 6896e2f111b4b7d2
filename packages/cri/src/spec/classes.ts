import { invalidArgument, StatusError } from '@gantry/api';
import type { ClassOrigin } from '@gantry/daemon/core/resource-classes/rdt-classes.ts';
import type { ResourceClasses } from '@gantry/daemon/core/resource-classes/resource-classes.ts';
import type { RuntimeSpec } from '@gantry/oci';
import type { RuntimeConfig } from '../config/runtime-config.ts';

/** Classes of cache and memory bandwidth (RDT) and of block I/O, by annotations of the pod or container. */

const rdt = { container: 'io.kubernetes.cri.rdt-class', pod: 'rdt.resources.beta.kubernetes.io' } as const;
const blockio = { container: 'io.kubernetes.cri.blockio-class', pod: 'blockio.resources.beta.kubernetes.io' } as const;

/** The class that a container is to have: its own, or by the pod's annotations for it or for all. */
function classOf(
  keys: typeof rdt | typeof blockio,
  name: string,
  container: Record<string, string>,
  pod: Record<string, string>,
): { name: string; origin: ClassOrigin } | undefined {
  const own = container[keys.container];
  if (own !== undefined) return { name: own, origin: 'container' };
  const given = pod[`${keys.pod}/container.${name}`] ?? pod[`${keys.pod}/pod`];
  return given === undefined ? undefined : { name: given, origin: 'pod' };
}

export interface ClassRules {
  classes: ResourceClasses;
  /** With `ignore_…_not_enabled_errors`. */
  settings: RuntimeConfig['containerd'];
}

/** @throws InvalidArgument for a class that cannot be had, unless none can and the configuration says that this does not matter */
export function applyClasses(
  spec: RuntimeSpec,
  name: string,
  container: Record<string, string>,
  pod: Record<string, string>,
  rules: ClassRules,
): void {
  const io = classOf(blockio, name, container, pod);
  const cache = classOf(rdt, name, container, pod);
  try {
    if (io && io.name !== '') applyBlockIo(spec, io.name, rules, `container "${name}"`);
  } catch (error) {
    throw StatusError.wrap(error, 'failed to set blockio class');
  }
  try {
    if (cache && cache.name !== '') applyRdt(spec, cache.name, cache.origin, rules);
  } catch (error) {
    throw StatusError.wrap(error, 'failed to set RDT class');
  }
}

/** One class by its name; '' takes the container out of any. @throws InvalidArgument as `applyClasses` */
export function applyNamedClass(kind: 'rdt' | 'blockio', spec: RuntimeSpec, name: string, rules: ClassRules): void {
  if (kind === 'blockio') {
    if (name === '') delete spec.linux?.resources?.blockIO;
    else applyBlockIo(spec, name, rules, 'a container');
  } else if (name === '') delete spec.linux?.intelRdt;
  else applyRdt(spec, name, 'container', rules);
}

function applyBlockIo(spec: RuntimeSpec, name: string, { classes, settings }: ClassRules, whose: string): void {
  if (!classes.blockio) {
    if (settings.ignore_blockio_not_enabled_errors) return;
    throw invalidArgument(`blockio disabled, refusing to set blockio class of ${whose} to "${name}"`);
  }
  const parameters = classes.blockio.get(name);
  if (!parameters) throw invalidArgument(`no OCI BlockIO parameters for class "${name}"`);
  spec.linux ??= {};
  spec.linux.resources = { ...spec.linux.resources, blockIO: structuredClone(parameters) };
}

function applyRdt(spec: RuntimeSpec, name: string, origin: ClassOrigin, { classes, settings }: ClassRules): void {
  if (!classes.rdt) {
    if (settings.ignore_rdt_not_enabled_errors) return;
    throw invalidArgument(`RDT not initialized, class "${name}" not available`);
  }
  classes.rdt.check(name, origin);
  spec.linux ??= {};
  spec.linux.intelRdt = { closID: name };
}
