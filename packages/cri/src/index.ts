/** The Kubernetes face of the daemon, as plugins of it. */

export { nriPlugin } from './nri/nri-plugin.ts';
export { criGrpcPlugin, criImagesPlugin, criRuntimePlugin, podSandboxControllerPlugin } from './plugins.ts';
