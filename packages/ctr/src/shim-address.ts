import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

/**
 * Where the shim of a container may listen: as the bundle says that lies beside the daemon's socket, and as containerd's own shims
 * have it.
 */
export function shimAddresses(daemon: string, namespace: string, id: string): string[] {
  const socket = withoutScheme(daemon);
  const known: string[] = [];
  const bundle = path.join(path.dirname(socket), 'io.containerd.runtime.v2.task', namespace, id);
  try {
    const { address } = JSON.parse(readFileSync(path.join(bundle, 'bootstrap.json'), 'utf8')) as { address?: unknown };
    if (typeof address === 'string') known.push(address);
  } catch {
    // No bundle, or none that can be read: then the other names are left.
  }
  const hash = hashOf(socket, namespace, id);
  return [...known, `unix:///run/containerd/s/${hash}`, `\0/containerd-shim/${namespace}/${id}/shim.sock`];
}

/**
 * Where a shim may be asked what it does: gantry-shim at the control socket beside its own; containerd's, if it was started with -debug, at a
 * socket named after the container.
 * @param shim its container's id, or the address of its socket, or both
 */
export function shimDebugSockets(daemon: string, namespace: string, shim: { id: string; given: string }): string[] {
  const { id, given } = shim;
  const addresses = [...(given ? [given] : []), ...(id ? shimAddresses(daemon, namespace, id).slice(0, -2) : [])];
  const control = addresses.map((address) => `${withoutScheme(address)}.c`);
  if (!id) return control;
  return [...control, `/run/containerd/s/${hashOf(withoutScheme(daemon), namespace, id, 'debug')}`];
}

const withoutScheme = (address: string): string => address.replace(/^unix:(\/\/)?/, '');

const hashOf = (...parts: string[]): string =>
  createHash('sha256')
    .update(path.posix.join(...parts))
    .digest('hex');
