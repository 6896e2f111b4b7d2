import type { Container, PodSandbox } from '@gantry/nri';
import { parseYaml } from '@gantry/oci/cdi/yaml.ts';

/** Where samples have their annotations: today, and before. */
const domains = ['noderesource.dev', 'nri.io', 'nri.containerd.io'];

/** The list, in YAML, of a pod's annotation of a kind for a container, else for all of its containers; nothing if there is none. */
export async function annotated<T>(pod: PodSandbox, container: Container, kind: string): Promise<T[]> {
  const keys = domains.map((domain) => `${kind}.${domain}`);
  const names = keys.flatMap((key) => [`${key}/container.${container.name}`, `${key}/pod`, key]);
  const name = names.find((each) => pod.annotations[each] !== undefined);
  const list = name === undefined ? [] : await parseYaml(pod.annotations[name]!);
  if (!Array.isArray(list)) throw new Error(`annotation ${name} is no list`);
  return list as T[];
}
