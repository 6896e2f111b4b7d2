import { invalidArgument } from '@gantry/api';

/** The parts of a qualified device name, `vendor.com/class=device`. */
export interface DeviceName {
  vendor: string;
  class: string;
  device: string;
}

const edgePattern = /^[A-Za-z0-9]$/;

/** @throws InvalidArgument that says which part is wrong */
export function parseDeviceName(name: string): DeviceName {
  const [, vendor = '', kind = '', device = ''] = /^([^/=][^/=]*)\/([^=]+)=(.+)$/s.exec(name) ?? [];
  if (vendor === '') throw invalidArgument(`unqualified device ${JSON.stringify(name)}, missing vendor`);
  const problem = kindProblem('vendor', vendor) ?? kindProblem('class', kind) ?? deviceProblem(device);
  if (problem !== undefined) throw invalidArgument(`invalid device ${JSON.stringify(name)}: ${problem}`);
  return { vendor, class: kind, device };
}

export function isDeviceName(name: string): boolean {
  try {
    parseDeviceName(name);
    return true;
  } catch {
    return false;
  }
}

/** What is wrong with a vendor or a class: a letter first, a letter or digit last, letters, digits and `_-.` between. */
export function kindProblem(what: 'vendor' | 'class', name: string): string | undefined {
  if (!/^[A-Za-z]/.test(name)) return `invalid ${what}. ${JSON.stringify(name)}, should start with letter`;
  return charactersProblem(`${what} name`, name, /^[A-Za-z0-9_.-]$/);
}

/** What is wrong with a device's own name: as a class, but a digit may be first, and colons between. */
export function deviceProblem(name: string): string | undefined {
  if (!/^[A-Za-z0-9]/.test(name))
    return `invalid device name ${JSON.stringify(name)}, should start with a letter or digit`;
  return charactersProblem('device name', name, /^[A-Za-z0-9_.:-]$/);
}

function charactersProblem(what: string, name: string, allowed: RegExp): string | undefined {
  for (const character of name) {
    if (!allowed.test(character)) return `invalid character '${character}' in ${what} ${JSON.stringify(name)}`;
  }
  if (!edgePattern.test(name.at(-1) ?? '')) {
    return `invalid ${what} ${JSON.stringify(name)}, should end with a letter or digit`;
  }
  return undefined;
}

const annotationPrefix = 'cdi.k8s.io/';

/**
 * Devices that annotations `cdi.k8s.io/…` ask for: names with commas between.
 * @throws InvalidArgument for a value with what is no qualified name
 */
export function annotatedDevices(annotations: Readonly<Record<string, string>>): string[] {
  const devices: string[] = [];
  for (const [key, value] of Object.entries(annotations)) {
    if (!key.startsWith(annotationPrefix)) continue;
    for (const device of value.split(',')) {
      if (!isDeviceName(device)) throw invalidArgument(`invalid CDI device name ${JSON.stringify(device)}`);
      devices.push(device);
    }
  }
  return devices;
}
