// Devices, mounts and CDI devices for containers, by annotations of their pods: `devices.nri.io/container.NAME`, `mounts.nri.io/…`,
// `cdi-devices.nri.io/…`, each a list in YAML.
import { pluginOptions, runPlugin } from '@gantry/nri';
import { annotated } from './annotations.ts';

type Device = {
  path: string;
  type: string;
  major: number;
  minor: number;
  file_mode?: number;
  uid?: number;
  gid?: number;
};
type Mount = { source: string; destination: string; type?: string; options?: string[] };

const plugin = await runPlugin(
  {
    async createContainer(pod, container, adjust) {
      for (const { path, type, major, minor, file_mode, uid, gid } of await annotated<Device>(
        pod,
        container,
        'devices.nri.io',
      )) {
        const optional = Object.entries({ fileMode: file_mode, uid, gid }).filter(([, value]) => value !== undefined);
        const owner = Object.fromEntries(optional.map(([name, value]) => [name, { value: value! }]));
        adjust.device({ path, type, major: BigInt(major), minor: BigInt(minor), ...owner });
      }
      for (const mount of await annotated<Mount>(pod, container, 'mounts.nri.io'))
        adjust.mount({ type: '', options: [], ...mount });
      for (const name of await annotated<string>(pod, container, 'cdi-devices.nri.io')) adjust.cdiDevice(name);
    },
  },
  pluginOptions('device-injector', '10'),
);
await plugin.closed;
