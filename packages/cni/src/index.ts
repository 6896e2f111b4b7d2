/** Networks of containers, by plugins of the Container Network Interface. */
export * from './cni-network.ts';
export * from './cni-settings.ts';
export * from './netns.ts';
export * from './network-directory.ts';
export * from './pod-network.ts';
