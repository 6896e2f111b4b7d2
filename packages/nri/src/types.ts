/** The messages that plugins are given and give, under the names of NRI. */
export type {
  Container,
  ContainerAdjustment,
  ContainerUpdate,
  Hook,
  Hooks,
  LinuxDevice,
  LinuxResources,
  Mount,
  OwningPlugins,
  PodSandbox,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
export {
  ContainerState,
  IOPrioClass,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  MpolFlag,
  MpolMode,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
