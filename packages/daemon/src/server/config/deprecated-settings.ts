import { isTable } from '../../core/plugin/config-check.ts';
import type { Deprecation } from '../../core/warnings/deprecations.ts';

/** Settings that containerd 2.3 has deprecated, by their path in a configuration of the newest version. */
const settings: readonly (readonly [Deprecation, ...path: string[]])[] = [
  ['cri-registry-mirrors', 'io.containerd.cri.v1.images', 'registry', 'mirrors'],
  ['cri-registry-auths', 'io.containerd.cri.v1.images', 'registry', 'auths'],
  ['cri-registry-configs', 'io.containerd.cri.v1.images', 'registry', 'configs'],
  ['cri-cni-bin-dir', 'io.containerd.cri.v1.runtime', 'cni', 'bin_dir'],
  ['enable-cdi', 'io.containerd.cri.v1.runtime', 'enable_cdi'],
  ['tracing-processor-config', 'io.containerd.tracing.processor.v1.otlp'],
  ['tracing-service-config', 'io.containerd.internal.v1.tracing'],
];

/** Those in use, and where. A table or string that is empty, as `config default` prints it, is none. */
export function deprecatedSettings(config: Record<string, unknown>): { name: Deprecation; path: string[] }[] {
  return settings
    .map(([name, ...path]) => ({ name, path: ['plugins', ...path] }))
    .filter(({ path }) => {
      let value: unknown = config;
      for (const key of path) value = isTable(value) ? value[key] : undefined;
      if (isTable(value)) return Object.keys(value).length > 0;
      // That CDI is enabled is the default, written out or not.
      return value !== undefined && value !== '' && value !== true;
    });
}
