/** The plugins that `gantryd` is assembled from, for programs that embed the whole daemon. */
export { main } from './main.ts';
export { builtinPlugins } from './plugins.ts';
