import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, typeNameOf } from '@gantry/api';
import { parseJson, type RuntimeSpec, type SpecNamespace } from '@gantry/oci';
import { isPinnable } from './pinned-namespaces.ts';

/** How a sandbox is made. */
export interface SandboxPlan {
  /**
   * What holds it together: the process of its spec; one of ours that does nothing, where there is none in the spec but a pid
   * namespace, or clients join by its pid; or nothing but mounted namespaces.
   */
  kind: 'process' | 'pause' | 'pinned';
  spec: RuntimeSpec;
}

/** What a sandbox has that says nothing of namespaces. */
const defaultNamespaces: readonly SpecNamespace[] = [{ type: 'network' }, { type: 'ipc' }, { type: 'uts' }];

/** The message by which Kubernetes' clients say what a pod is like. */
const podConfigType = 'runtime.v1.PodSandboxConfig';

/**
 * Reads what there is to say how a sandbox is to be: the spec in its bundle, if there is one; else a pod's configuration in the options.
 * @param netns a network namespace to be in; '' for none given
 * @throws StatusError InvalidArgument for a spec that is not JSON
 */
export async function planSandbox(
  id: string,
  bundle: string,
  netns: string,
  options: Any | undefined,
): Promise<SandboxPlan> {
  const given = readSpec(bundle);
  const isPod = options !== undefined && typeNameOf(options) === podConfigType;
  if (!given && isPod) {
    const { podSpec } = await import('./pod-spec.ts');
    return { kind: 'pause', spec: podSpec(id, options, netns) };
  }
  const spec: RuntimeSpec = { ...given, ociVersion: given?.ociVersion || '1.0.2' };
  const namespaces = inNetwork(spec.linux?.namespaces ?? defaultNamespaces, netns);
  spec.linux = { ...spec.linux, namespaces };
  if (spec.process?.args?.length) return { kind: 'process', spec };
  if (isPod || namespaces.some(({ type, path: at }) => type === 'pid' && !at)) return { kind: 'pause', spec };
  const other = namespaces.find(
    ({ type, path: at }) => !at && !isPinnable(type) && type !== 'mount' && type !== 'cgroup',
  );
  if (other) throw invalidArgument(`a sandbox without a process cannot have a ${other.type} namespace of its own`);
  return { kind: 'pinned', spec };
}

/** Members find the network namespace that was made for the sandbox in its list. */
function inNetwork(namespaces: readonly SpecNamespace[], netns: string): SpecNamespace[] {
  if (netns === '' || namespaces.some(({ type, path: at }) => type === 'network' && at)) return [...namespaces];
  return [...namespaces.filter(({ type }) => type !== 'network'), { type: 'network', path: netns }];
}

function readSpec(bundle: string): RuntimeSpec | undefined {
  const file = path.join(bundle, 'config.json');
  let text: Buffer;
  try {
    text = readFileSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  if (text.length === 0) return undefined;
  try {
    const spec = parseJson<RuntimeSpec | null>(text);
    if (spec !== null && (typeof spec !== 'object' || Array.isArray(spec))) throw new SyntaxError('not an object');
    return spec ?? undefined;
  } catch (error) {
    throw invalidArgument(`failed to read ${file}: ${(error as Error).message}`, error);
  }
}
