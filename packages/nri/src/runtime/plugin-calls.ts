import { Event, type Plugin as PluginService } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { Client } from '@gantry/rpc';

export type PluginClient = Client<typeof PluginService>;

/** Events that are only told, by the call that tells of them. */
export const notifications = {
  runPodSandbox: Event.RUN_POD_SANDBOX,
  stopPodSandbox: Event.STOP_POD_SANDBOX,
  removePodSandbox: Event.REMOVE_POD_SANDBOX,
  postUpdatePodSandbox: Event.POST_UPDATE_POD_SANDBOX,
  postCreateContainer: Event.POST_CREATE_CONTAINER,
  startContainer: Event.START_CONTAINER,
  postStartContainer: Event.POST_START_CONTAINER,
  postUpdateContainer: Event.POST_UPDATE_CONTAINER,
  removeContainer: Event.REMOVE_CONTAINER,
} as const;

export type Notification = keyof typeof notifications;

/** Every event there is, for plugins that name none. */
export const allEvents = (1 << (Event.LAST - 1)) - 1;

export const hasEvent = (mask: number, event: Event): boolean => (mask & (1 << (event - 1))) !== 0;
