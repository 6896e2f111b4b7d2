import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { jsonAny, TypeUrl } from '@gantry/api';
import { contextOf } from '../../packages/daemon/src/core/request-context.ts';
import { ProxyConnection } from '../../packages/daemon/src/plugins/proxy/proxy-connection.ts';
import { ProxySandboxController } from '../../packages/daemon/src/plugins/proxy/proxy-sandbox-controller.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';

/**
 * `kill -9` of gantry-shim, of the daemon, and of both, while sandboxes are made and removed: each is there afterwards, whole, or it is not;
 * with the daemon alive every call is answered as if nothing had been.
 */
const rounds = faultRounds(4);
const skip = process.getuid?.() === 0 ? false : 'sandboxes need root';

describe('sandboxes whose shim and daemon are killed', { skip }, () => {
  const temp = makeTempDir('fault-sb');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const bundles = path.join(daemon.state, 'io.containerd.sandbox.controller.v1.shim/fault');
  const random = Random.fromEnvironment();
  const ctx = contextOf('fault');
  const specs = [{}, { linux: { namespaces: [{ type: 'pid' }, { type: 'ipc' }] } }];

  before(() => daemon.start());
  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  function connect(): { controller: ProxySandboxController; close(): Promise<void> } {
    const connection = new ProxyConnection('shim', daemon.address);
    return { controller: new ProxySandboxController(connection, 'shim'), close: () => connection.close() };
  }

  const shims = () =>
    processesMentioning(`-address ${daemon.address}`).filter(({ command }) => /^gantry-shim/.test(command));

  /** Processes that hold pid namespaces for the sandboxes of this test. */
  function pauses(): string[] {
    return readdirSync('/proc').filter((pid) => {
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '/pause\0') return false;
        return (
          readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(temp.path.slice(1)) || /fault-sb/.test(cgroupOf(pid))
        );
      } catch {
        return false;
      }
    });
  }
  const cgroupOf = (pid: string) => readFileSync(`/proc/${pid}/cgroup`, 'utf8');

  async function live(controller: ProxySandboxController, id: string, spec: object): Promise<void> {
    const runtime = { name: 'io.containerd.runc.v2' };
    const record = { id, labels: {}, runtime, sandboxer: 'shim', extensions: {} };
    await controller.create(ctx, { ...record, spec: jsonAny(TypeUrl.RuntimeSpec, JSON.stringify(spec)) });
    await controller.start(ctx, id);
    await controller.stop(ctx, id);
    await controller.shutdown(ctx, id);
  }

  test(`${rounds} times, seed ${random.seed}`, async () => {
    for (let round = 0; round < rounds; round++) {
      const { controller, close } = connect();
      const ids = [0, 1, 2, 3].map((index) => `fault-sb-${round}-${index}`);
      const lives = Promise.allSettled(ids.map((id, index) => live(controller, id, specs[index % 2]!)));
      await sleep(random.between(0, 350));
      const victim = random.pick(['shim', 'daemon', 'both']);
      if (victim !== 'daemon') for (const { pid } of shims()) process.kill(pid, 'SIGKILL');
      if (victim !== 'shim') {
        await daemon.kill();
        await daemon.start();
      }
      const ended = await lives;
      await close();
      const failed = ended.filter(({ status }) => status === 'rejected');
      if (victim === 'shim') assert.deepEqual(failed, [], `round ${round}`);
      const again = connect();
      for (const id of ids) {
        const { state } = await again.controller.status(ctx, id);
        if (state === '') continue;
        await again.controller.stop(ctx, id);
        await again.controller.shutdown(ctx, id);
      }
      await again.close();
      assert.deepEqual(readdirSync(bundles), [], `round ${round}, ${victim} killed`);
      assert.deepEqual(mountsBeneath(bundles), [], `round ${round}, ${victim} killed`);
      await eventually('no process is left', () => (pauses().length === 0 ? true : undefined));
    }
  });
});
