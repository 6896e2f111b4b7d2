import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { ModuleVerifier } from './module-verifier.ts';

/** `io.containerd.image-verifier.v1.module`: `[….modules.NAME]` tables, each with the path of an ES module. */
export const moduleVerifierPlugin = definePlugin({
  type: PluginTypes.ImageVerifier,
  id: 'module',
  config: schema({
    modules: field.tables({
      path: field.path(),
      timeout: field.duration('10s'),
      options: field.any(),
    }),
  }),
  init({ config, log, onClose }) {
    const modules = Object.entries(config.modules).map(([name, { path, timeout, options }]) => ({
      name,
      file: path,
      timeoutMs: timeout,
      options,
    }));
    if (modules.length === 0) throw new PluginSkip('no modules are configured');
    const verifier = new ModuleVerifier(modules, log);
    onClose(() => verifier.close());
    return verifier;
  },
});
