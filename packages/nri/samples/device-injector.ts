// Devices, mounts and CDI devices for containers, by annotations of their pods: `devices.noderesource.dev/container.NAME`,
// `mounts.noderesource.dev/…`, `cdi-devices.noderesource.dev/…`, each a list in YAML.
import { pluginOptions, runPlugin } from '@gantry/nri';
import { annotated } from './annotations.ts';

type Device = { path: string; type: string; major: number; minor: number };
type Owner = { file_mode?: number; uid?: number; gid?: number };
type Mount = { source: string; destination: string; type?: string; options?: string[] };

const plugin = await runPlugin(
  {
    async createContainer(pod, container, adjust) {
      for (const each of await annotated<Device & Owner>(pod, container, 'devices')) {
        const { path, type, major, minor, file_mode: fileMode, uid, gid } = each;
        const given = Object.entries({ fileMode, uid, gid }).filter(([, value]) => value !== undefined);
        const owner = Object.fromEntries(given.map(([name, value]) => [name, { value: value! }]));
        adjust.device({ path, type, major: BigInt(major), minor: BigInt(minor), ...owner });
      }
      const mounts = await annotated<Mount>(pod, container, 'mounts');
      for (const mount of mounts) adjust.mount({ type: '', options: [], ...mount });
      for (const name of await annotated<string>(pod, container, 'cdi-devices')) adjust.cdiDevice(name);
    },
  },
  pluginOptions('device-injector', '10'),
);
await plugin.closed;
