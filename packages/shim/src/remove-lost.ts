import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { askControl } from './control-client.ts';
import { defaultSocketDir, groupPathsOfSocket } from './grouping.ts';

/** How long the shim may take to end the container, milliseconds. */
const removeMs = 60_000;

/**
 * Ends a container whose bundle somebody has removed, and its record with it: the shim that has it knows all that was in there, and the
 * lists of the shims know which that is. Without that shim only the runtime still knows the container.
 */
export async function removeLost(namespace: string, id: string, bundle: string): Promise<void> {
  const socketDir = process.env['GANTRY_SHIM_SOCKET_DIR'] || defaultSocketDir;
  for (const name of listsIn(socketDir)) {
    const entry = path.join(socketDir, name, `${namespace}+${id}`);
    if (contentOf(entry) !== bundle) continue;
    const { control } = groupPathsOfSocket(path.join(socketDir, name.slice(0, -'.d'.length)));
    const answer = await askControl(control, { remove: { namespace, id } }, removeMs);
    if (answer?.status === 'removed') return;
    const { runRuntime, runtimeOf } = await import('./oci-runtime.ts');
    try {
      await runRuntime(runtimeOf(namespace), ['delete', '--force', id], { logFile: path.join(bundle, 'log.json') });
    } catch (error) {
      process.stderr.write(`runtime delete: ${(error as Error).message}\n`);
    }
    rmSync(entry, { force: true });
    const { removeFromDeadGroup } = await import('./remove-group.ts');
    await removeFromDeadGroup(control, namespace, id);
    return;
  }
}

function listsIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.d'));
  } catch {
    return [];
  }
}

function contentOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
