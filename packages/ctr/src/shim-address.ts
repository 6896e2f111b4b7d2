import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

/**
 * Where the shim of a container may listen: as the bundle says that lies beside the daemon's socket, and as containerd's own shims
 * have it.
 */
export function shimAddresses(daemon: string, namespace: string, id: string): string[] {
  const socket = daemon.replace(/^unix:(\/\/)?/, '');
  const known: string[] = [];
  const bundle = path.join(path.dirname(socket), 'io.containerd.runtime.v2.task', namespace, id);
  try {
    const { address } = JSON.parse(readFileSync(path.join(bundle, 'bootstrap.json'), 'utf8')) as { address?: unknown };
    if (typeof address === 'string') known.push(address);
  } catch {
    // No bundle, or none that can be read: then the other names are left.
  }
  const hash = createHash('sha256')
    .update(path.posix.join(socket, namespace, id))
    .digest('hex');
  return [...known, `unix:///run/containerd/s/${hash}`, `\0/containerd-shim/${namespace}/${id}/shim.sock`];
}
