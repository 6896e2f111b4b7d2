/** Type URLs of things that are JSON, not protobuf, inside an Any (containerd's typeurl registrations). */
export const TypeUrl = {
  /** OCI runtime spec: `Container.spec` and exec specs hold the whole document or its `process`. */
  RuntimeSpec: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
  RuntimeSpecProcess: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
  RuntimeSpecLinuxResources: 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources',
  RuntimeSpecWindowsResources: 'types.containerd.io/opencontainers/runtime-spec/1/WindowsResources',
} as const;
