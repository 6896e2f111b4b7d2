import { readFileSync } from 'node:fs';
import { invalidArgument } from '@gantry/api';
import type { Capability } from '@gantry/api/gen/cri/v1/api_pb.js';
import { effectiveCapabilities, knownCapabilities, type RuntimeSpec } from '@gantry/oci';

/** What this process could give: all that the kernel has, usually. */
export function allCapabilities(): string[] {
  return effectiveCapabilities(readFileSync('/proc/self/status', 'latin1'));
}

/**
 * Adds and drops, in this order: everything or nothing where `ALL` says so, then single ones. Ambient ones are inheritable too.
 * @throws InvalidArgument for a name that is none
 */
export function applyCapabilities(spec: RuntimeSpec, request: Capability | undefined, privileged: boolean): void {
  if (!request || !spec.process) return;
  const add = request.addCapabilities.map(nameOf);
  const drop = request.dropCapabilities.map(nameOf);
  const ambient = request.addAmbientCapabilities.map(nameOf);
  const present = privileged ? allCapabilities() : (spec.process.capabilities?.bounding ?? []);
  let names = add.includes('ALL') ? allCapabilities() : [...present];
  if (drop.includes('ALL')) names = [];
  names = [...new Set([...names, ...add.filter((name) => name !== 'ALL')])];
  names = names.filter((name) => !drop.includes(name));
  const bounding = [...new Set([...names, ...ambient])];
  spec.process.capabilities = {
    bounding,
    effective: [...bounding],
    permitted: [...bounding],
    ...(ambient.length > 0 && { inheritable: ambient, ambient }),
  };
}

function nameOf(text: string): string {
  const upper = text.toUpperCase();
  if (upper === 'ALL') return 'ALL';
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!knownCapabilities().includes(name)) throw invalidArgument(`unknown capability ${JSON.stringify(name)}`);
  return name;
}
