// Resource limits of processes, by annotations of pods: `ulimits.noderesource.dev/container.NAME: [{type: nofile, hard: 4096, soft: 1024}]`.
import { pluginOptions, runPlugin } from '@gantry/nri';
import { annotated } from './annotations.ts';

type Limit = { type: string; hard: number; soft: number };

const plugin = await runPlugin(
  {
    async createContainer(pod, container, adjust) {
      for (const { type, hard, soft } of await annotated<Limit>(pod, container, 'ulimits')) {
        adjust.rlimit(`RLIMIT_${type.toUpperCase().replace(/^RLIMIT_/, '')}`, hard, soft);
      }
    },
  },
  pluginOptions('ulimit-adjuster', '20'),
);
await plugin.closed;
