import type { CdiSpec, ContainerEdits } from './cdi-spec.ts';

/** The versions of the specification that are understood, in order. */
export const versions = ['0.1.0', '0.2.0', '0.3.0', '0.4.0', '0.5.0', '0.6.0', '0.7.0', '0.8.0', '1.0.0', '1.1.0'];

/** The lowest version that has all that a specification uses. */
export function requiredVersion(spec: CdiSpec): string {
  const edits = [spec.containerEdits ?? {}, ...spec.devices.map((device) => device.containerEdits)];
  const any = (uses: (edits: ContainerEdits) => boolean): boolean => edits.some(uses);
  const annotated = [spec, ...spec.devices].some(({ annotations = {} }) => Object.keys(annotations).length > 0);
  if (any(({ netDevices, intelRdt }) => !!netDevices?.length || !!(intelRdt?.schemata || intelRdt?.enableMonitoring))) {
    return '1.1.0';
  }
  if (any(({ intelRdt, additionalGids }) => intelRdt !== undefined || !!additionalGids?.length)) return '0.7.0';
  if (annotated || spec.kind.split('/')[1]!.includes('.')) return '0.6.0';
  if (spec.devices.some(({ name }) => /^\d/.test(name))) return '0.5.0';
  if (any(({ deviceNodes = [] }) => deviceNodes.some(({ hostPath = '' }) => hostPath !== ''))) return '0.5.0';
  if (any(({ mounts = [] }) => mounts.some(({ type = '' }) => type !== ''))) return '0.4.0';
  return '0.3.0';
}
