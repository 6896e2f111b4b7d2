/** The version that `gantry-shim -v` and `-info` print. */
export const shimVersion = '0.1.0';
/** The runtime name that gantry-shim answers to outright. */
export const runtimeName = 'io.containerd.gantry.v1';
