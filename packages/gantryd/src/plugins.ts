// Everything this executable is made of, in the order in which containerd lists it.
import {
  healthcheckPlugin,
  introspectionPlugin,
  introspectionServicePlugin,
  type Plugin,
  serverPlugins,
  versionPlugin,
} from '@gantry/daemon';

/** The plugins of `gantryd`. An embedder may take them all, or leave some out. */
export const builtinPlugins: readonly Plugin[] = [
  introspectionServicePlugin,
  introspectionPlugin,
  versionPlugin,
  healthcheckPlugin,
  ...serverPlugins,
];
