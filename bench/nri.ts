import { type RunningPlugin, runPlugin } from '@gantry/nri';
import { eventually } from '../test/lib/processes.ts';
import { rate } from './containers.ts';
import { containerImage } from './cri-lab.ts';
import { podLife } from './cri-pods.ts';
import type { Peer } from './peers.ts';
import type { Row } from './report.ts';

/**
 * What plugins of NRI cost the daemon: processor time of a pod's life with none, one and three of them, which are told of everything and set
 * a variable and an annotation each. They run in this process, so that their own time is not in it.
 */
export async function* benchNri(peers: readonly [gantry: Peer, containerd: Peer], quick: boolean): AsyncGenerator<Row> {
  for (const peer of peers) {
    await peer.podImages.pullImage({ image: { image: containerImage } });
    await rate(peer, 1, 3, (name) => podLife(peer, `warm-${name}`));
  }
  for (const count of [0, 1, 3]) {
    const [gantry, peer] = [[], []] as [number[], number[]];
    // In turns: the machine may have other work for a while.
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      gantry.push(await withPlugins(peers[0], count, quick ? 4 : 8));
      peer.push(await withPlugins(peers[1], count, quick ? 4 : 8));
    }
    yield {
      what: `pod of one container with ${count} NRI plugins, CPU time each`,
      unit: 'ms',
      gantry: Math.min(...gantry),
      peer: Math.min(...peer),
      better: 'less',
    };
  }
}

/** Milliseconds of processor time for each pod. */
async function withPlugins(peer: Peer, count: number, seconds: number): Promise<number> {
  const plugins: RunningPlugin[] = [];
  for (let index = 0; index < count; index++) plugins.push(await connect(peer, index));
  try {
    return (await rate(peer, 1, seconds, (name) => podLife(peer, `nri-${count}-${name}`))).cpuMs;
  } finally {
    for (const plugin of plugins) plugin.close();
  }
}

async function connect(peer: Peer, index: number): Promise<RunningPlugin> {
  const nothing = (): undefined => undefined;
  let synchronized = false;
  const plugin = await runPlugin(
    {
      synchronize: () => {
        synchronized = true;
      },
      runPodSandbox: nothing,
      stopPodSandbox: nothing,
      removePodSandbox: nothing,
      createContainer: (_pod, _container, adjust) => {
        adjust.env(`PLUGIN_${index}`, 'yes').annotate(`plugin-${index}.bench`, 'yes');
      },
      postCreateContainer: nothing,
      startContainer: nothing,
      postStartContainer: nothing,
      stopContainer: nothing,
      removeContainer: nothing,
    },
    { index: `1${index}`, name: 'bench', socketPath: peer.nriSocket },
  );
  await eventually('the plugin takes part', () => synchronized || undefined, 60_000);
  return plugin;
}
