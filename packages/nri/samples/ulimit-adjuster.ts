// Resource limits of processes, by annotations of pods: `ulimits.nri.containerd.io/container.NAME: [{type: nofile, hard: 4096, soft: 1024}]`.
import { pluginOptions, runPlugin } from '@gantry/nri';
import { annotated } from './annotations.ts';

const plugin = await runPlugin(
  {
    async createContainer(pod, container, adjust) {
      const limits = await annotated<{ type: string; hard: number; soft: number }>(
        pod,
        container,
        'ulimits.nri.containerd.io',
      );
      for (const { type, hard, soft } of limits) {
        const name = type.toUpperCase();
        adjust.rlimit(name.startsWith('RLIMIT_') ? name : `RLIMIT_${name}`, hard, soft);
      }
    },
  },
  pluginOptions('ulimit-adjuster', '20'),
);
await plugin.closed;
