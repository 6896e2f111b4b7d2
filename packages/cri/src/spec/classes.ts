import { existsSync } from 'node:fs';
import { invalidArgument } from '@gantry/api';
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
): string | undefined {
  return container[keys.container] ?? pod[`${keys.pod}/container.${name}`] ?? pod[`${keys.pod}/pod`];
}

/** @throws InvalidArgument for a class on a machine that has none, unless the configuration says that this does not matter */
export function applyClasses(
  spec: RuntimeSpec,
  name: string,
  container: Record<string, string>,
  pod: Record<string, string>,
  settings: RuntimeConfig['containerd'],
): void {
  const cache = classOf(rdt, name, container, pod);
  if (cache !== undefined && cache !== '') applyNamedClass('rdt', spec, cache, settings);
  const io = classOf(blockio, name, container, pod);
  if (io !== undefined && io !== '') applyNamedClass('blockio', spec, io, settings);
}

/** One class by its name; '' takes the container out of any. @throws InvalidArgument as `applyClasses` */
export function applyNamedClass(
  kind: 'rdt' | 'blockio',
  spec: RuntimeSpec,
  name: string,
  settings: RuntimeConfig['containerd'],
): void {
  spec.linux ??= {};
  if (kind === 'blockio') {
    if (name === '') delete spec.linux.resources?.blockIO;
    else if (!settings.ignore_blockio_not_enabled_errors) {
      throw invalidArgument(`blockio support is not enabled, refusing to apply class "${name}"`);
    }
    return;
  }
  if (name === '') delete spec.linux.intelRdt;
  else if (existsSync('/sys/fs/resctrl/schemata')) spec.linux.intelRdt = { closID: name };
  else if (!settings.ignore_rdt_not_enabled_errors) {
    throw invalidArgument(`RDT support is not enabled, refusing to apply class "${name}"`);
  }
}
