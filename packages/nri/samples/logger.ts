// Tells of every event on standard output, one line of JSON each.
import { eventNumbers, type PluginHandlers, pluginOptions, runPlugin } from '@gantry/nri';

const log = (event: string, about: object): void => console.log(JSON.stringify({ event, ...about }));
const handlers = Object.fromEntries(
  Object.keys(eventNumbers).map((event) => [
    event,
    (pod: { name?: string }, container?: { name?: string }) =>
      log(event, { pod: pod.name, container: container?.name }),
  ]),
) as PluginHandlers;

const plugin = await runPlugin(
  {
    ...handlers,
    synchronize: (pods, containers) => log('synchronize', { pods: pods.length, containers: containers.length }),
    validateContainerAdjustment: ({ pod, container }) =>
      log('validateContainerAdjustment', { pod: pod?.name, container: container?.name }),
  },
  pluginOptions('logger', '00'),
);
await plugin.closed;
