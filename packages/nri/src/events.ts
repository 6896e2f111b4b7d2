import { Event } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';

/** What a plugin can take part in, by the names of its handlers. */
export const eventNumbers = {
  runPodSandbox: Event.RUN_POD_SANDBOX,
  stopPodSandbox: Event.STOP_POD_SANDBOX,
  removePodSandbox: Event.REMOVE_POD_SANDBOX,
  createContainer: Event.CREATE_CONTAINER,
  postCreateContainer: Event.POST_CREATE_CONTAINER,
  startContainer: Event.START_CONTAINER,
  postStartContainer: Event.POST_START_CONTAINER,
  updateContainer: Event.UPDATE_CONTAINER,
  postUpdateContainer: Event.POST_UPDATE_CONTAINER,
  stopContainer: Event.STOP_CONTAINER,
  removeContainer: Event.REMOVE_CONTAINER,
  updatePodSandbox: Event.UPDATE_POD_SANDBOX,
  postUpdatePodSandbox: Event.POST_UPDATE_POD_SANDBOX,
  validateContainerAdjustment: Event.VALIDATE_CONTAINER_ADJUSTMENT,
} as const;

export type EventName = keyof typeof eventNumbers;

/** A mask as the protocol has it: the bit below the event's number. */
export function eventMask(names: Iterable<EventName>): number {
  let mask = 0;
  for (const name of names) mask |= 1 << (eventNumbers[name] - 1);
  return mask;
}

export function eventsOfMask(mask: number): EventName[] {
  return (Object.keys(eventNumbers) as EventName[]).filter((name) => mask & (1 << (eventNumbers[name] - 1)));
}
