import { invalidArgument } from '@gantry/api';

const pattern = /^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$/;
const longest = 76;

/** containerd's identifiers: namespaces, containers, execs, leases. @throws InvalidArgument */
export function validateIdentifier(id: string): void {
  if (id === '') throw invalidArgument('identifier must not be empty: invalid argument');
  if (id.length > longest) {
    throw invalidArgument(`identifier "${id}" greater than maximum length (${longest} characters): invalid argument`);
  }
  if (!pattern.test(id)) throw invalidArgument(`identifier "${id}" must match ${pattern.source}: invalid argument`);
}
