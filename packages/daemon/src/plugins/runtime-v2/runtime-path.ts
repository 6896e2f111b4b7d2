import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument, notFound } from '@gantry/api';
import type { Bundle } from './bundle.ts';

/** Where a runtime's shim binary is, and whether it is Gantry's own. */
export interface RuntimePath {
  path: string;
  /** Our own shim: it may be given further containers without a `start` process, and started again if it dies. */
  own: boolean;
}

export interface RuntimePathSettings {
  /** gantry-shim's launcher. */
  ownShim: string;
  /** A foreign shim that answers for `io.containerd.runc.v2`, '' for our own. */
  runcV2Shim: string;
  /** Searched in order for `containerd-shim-*`, before PATH. */
  directories: readonly string[];
}

const ownNames = new Set(['io.containerd.runc.v2', 'io.containerd.gantry.v1']);

/**
 * Finds the shim for a runtime name, as containerd's runtime-v2.md says: an absolute path is itself,
 * `io.containerd.<name>.<version>` is `containerd-shim-<name>-<version>` on PATH.
 */
export async function resolveRuntime(runtime: string, settings: RuntimePathSettings): Promise<RuntimePath> {
  if (runtime === '') throw invalidArgument('no runtime name is given: invalid argument');
  if (path.isAbsolute(runtime)) {
    if (!(await isExecutable(runtime)))
      throw notFound(`invalid custom binary path: stat ${runtime}: no such file or directory`);
    return { path: runtime, own: path.resolve(runtime) === path.resolve(settings.ownShim) };
  }
  if (runtime === 'io.containerd.runc.v2' && settings.runcV2Shim !== '')
    return { path: settings.runcV2Shim, own: false };
  if (ownNames.has(runtime)) return { path: settings.ownShim, own: true };
  const binary = shimBinaryName(runtime);
  if (binary === undefined) {
    throw invalidArgument(
      `failed to resolve runtime path: invalid runtime name ${runtime}, correct runtime name should be either format like \`io.containerd.runc.v2\` or a full path to the binary: invalid argument`,
    );
  }
  for (const directory of [...settings.directories, ...(process.env['PATH'] ?? '').split(':')]) {
    if (directory === '') continue;
    const candidate = path.join(directory, binary);
    if (await isExecutable(candidate)) return { path: candidate, own: false };
  }
  throw notFound(
    `failed to resolve runtime path: runtime "${runtime}" binary not installed "${binary}": file does not exist`,
  );
}

/**
 * Whether the shim of a bundle that was left behind is ours. One that containerd started was started as anybody else's, whatever program
 * it runs: it is ended, not started again, when it breaks.
 */
export function isOwn(bundle: Bundle, binary: string, { ownShim }: RuntimePathSettings): boolean {
  return binary === ownShim && bundle.taken === undefined;
}

/** `containerd-shim-runc-v2` for `io.containerd.runc.v2`; undefined if the name has fewer than two parts or an empty one. */
export function shimBinaryName(runtime: string): string | undefined {
  const parts = runtime.split('.');
  if (parts.length < 2 || parts.some((part) => part === '' || part.includes('/'))) return undefined;
  return `containerd-shim-${parts.at(-2)}-${parts.at(-1)}`;
}

async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
