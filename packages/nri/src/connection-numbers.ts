/** Numbers of the two connections over one socket: calls to the plugin, and calls to the runtime. */
export const PluginConnection = 1;
export const RuntimeConnection = 2;

export const defaultSocketPath = '/var/run/nri/nri.sock';

/** The environment of plugins that the runtime starts. */
export const environment = { socket: 'NRI_PLUGIN_SOCKET', name: 'NRI_PLUGIN_NAME', index: 'NRI_PLUGIN_IDX' } as const;

/** The version of NRI that this is, as plugins and runtimes tell each other. */
export const nriVersion = 'v0.12.0';
