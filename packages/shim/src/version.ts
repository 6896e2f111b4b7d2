/** The version that `gantry-shim -v` and `-info` print. */
export const shimVersion = '0.1.0';
/** The runtime name that gantry-shim answers to outright. */
export const runtimeName = 'io.containerd.gantry.v1';

/** Annotation of `-info`: one running shim may be given further containers without a `start`. */
export const reuseAnnotation = 'io.gantry.shim.reuse';
/** Annotation of `-info`: when the connection drops, start the shim again instead of calling `delete`; it takes the containers over. */
export const readoptAnnotation = 'io.gantry.shim.readopt';
