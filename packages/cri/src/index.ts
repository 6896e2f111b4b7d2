/** The Kubernetes face of the daemon, as plugins of it. */
export { criGrpcPlugin, criImagesPlugin, criRuntimePlugin, podSandboxControllerPlugin } from './plugins.ts';
