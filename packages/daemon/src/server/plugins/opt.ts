// `io.containerd.internal.v1.opt`: a directory of installed programs, put first in PATH and in the libraries' path.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';

/** Puts a directory first in a variable that lists directories. */
function prepend(name: string, dir: string): void {
  const rest = (process.env[name] ?? '').split(':').filter((entry) => entry !== '' && entry !== dir);
  process.env[name] = [dir, ...rest].join(':');
}

export const optPlugin = definePlugin({
  type: PluginTypes.Internal,
  id: 'opt',
  config: schema({ path: field.path('/opt/gantry') }),
  init: async (context): Promise<unknown> => {
    const root = context.config.path;
    context.meta.exports['path'] = root;
    const bin = path.join(root, 'bin');
    const lib = path.join(root, 'lib');
    await mkdir(bin, { recursive: true, mode: 0o711 });
    await mkdir(lib, { recursive: true, mode: 0o711 });
    prepend('PATH', bin);
    prepend('LD_LIBRARY_PATH', lib);
    return { path: root };
  },
});
