import type { Container, PodSandbox } from '@gantry/nri';
import { parseYaml } from '@gantry/oci/cdi/yaml.ts';

/** The list, in YAML, of a pod's annotation for a container, else for all of its containers; nothing if there is none. */
export async function annotated<T>(pod: PodSandbox, container: Container, key: string): Promise<T[]> {
  const names = [`${key}/container.${container.name}`, `${key}/pod`, key];
  const name = names.find((each) => pod.annotations[each] !== undefined);
  const list = name === undefined ? [] : await parseYaml(pod.annotations[name]!);
  if (!Array.isArray(list)) throw new Error(`annotation ${name} is no list`);
  return list as T[];
}
