import { readFileSync } from 'node:fs';
import type { Capability } from '@gantry/api/gen/cri/v1/api_pb.js';
import { effectiveCapabilities, knownCapabilities, type RuntimeSpec } from '@gantry/oci';

/** What this process could give: all that the kernel has, usually. */
export function allCapabilities(): string[] {
  return effectiveCapabilities(readFileSync('/proc/self/status', 'latin1'));
}

/**
 * Adds and drops, in this order: everything or nothing where `ALL` says so, then single ones. Ambient ones are inheritable too.
 * What is no capability here is left out, as runc does: pods are written for more kernels than this one.
 * @returns names that are none
 */
export function applyCapabilities(spec: RuntimeSpec, request: Capability | undefined): string[] {
  if (!request || !spec.process) return [];
  const strange: string[] = [];
  const known = (names: readonly string[]): string[] =>
    names.map(nameOf).filter((name) => {
      if (name === 'ALL' || knownCapabilities().includes(name)) return true;
      strange.push(name);
      return false;
    });
  const add = known(request.addCapabilities);
  const drop = known(request.dropCapabilities);
  let ambient = known(request.addAmbientCapabilities);
  const present = spec.process.capabilities?.bounding ?? [];
  let names = add.includes('ALL') ? allCapabilities() : [...present];
  if (drop.includes('ALL')) names = [];
  names = [...new Set([...names, ...add.filter((name) => name !== 'ALL')])];
  names = names.filter((name) => !drop.includes(name));
  // All that the container has, not all there are.
  if (ambient.includes('ALL')) ambient = [...new Set([...names, ...ambient.filter((name) => name !== 'ALL')])];
  const bounding = [...new Set([...names, ...ambient])];
  spec.process.capabilities = {
    ...(bounding.length > 0 && { bounding, effective: [...bounding], permitted: [...bounding] }),
    ...(ambient.length > 0 && { inheritable: ambient, ambient }),
  };
  return strange;
}

function nameOf(text: string): string {
  const upper = text.toUpperCase();
  if (upper === 'ALL') return 'ALL';
  return upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}
