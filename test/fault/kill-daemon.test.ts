import { rmdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TestDaemon } from '../lib/daemon.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { checkAnswered, resume } from './after-restart.ts';
import { type Connection, connect } from './connection.ts';
import { buildKnownImages } from './fault-images.ts';
import { Ledger } from './ledger.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';
import {
  cgroupFolders,
  collect,
  endProcesses,
  nothingRuns,
  removeCgroups,
  removeEverything,
  survey,
} from './survey.ts';
import { pullImage, Workload, type World } from './workload.ts';

/**
 * `kill -9` of the daemon at random moments, while clients pull, unpack, write, run containers and collect garbage: what was
 * answered stays, what was not is gone or can be taken up again, and nothing is left that no record names.
 * `GANTRY_FAULT_SEED` repeats the choices of a run (not the machine's timing), `GANTRY_FAULT_ROUNDS` sets the number of kills.
 */
const rounds = faultRounds(20);
const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('the daemon killed', { skip }, () => {
  const temp = makeTempDir('fault');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const random = Random.fromEnvironment();
  let registry: TestRegistry;
  let world: World;
  let connection: Connection;

  const start = async (): Promise<void> => {
    await daemon.start();
    connection = connect(daemon.address, world.namespace);
    await connection.ready(10_000);
  };

  before(async () => {
    const images = await buildKnownImages(path.join(temp.path, 'images'));
    registry = await TestRegistry.start(temp.path);
    const references = new Map<string, string>();
    for (const [name, { layout }] of images) references.set(name, await registry.fill(layout, `fault/${name}:latest`));
    world = {
      directory: temp.path,
      namespace: 'fault',
      lease: 'kept',
      cgroup: path.basename(temp.path),
      random,
      ledger: new Ledger(),
      images,
      references,
    };
    await start();
    await connection.leases.create({ id: world.lease });
    await pullImage(world, connection, 'base');
  });

  after(async () => {
    connection?.close();
    await daemon.stop();
    await registry?.close();
    await endProcesses(temp.path);
    removeCgroups(path.basename(temp.path));
    await temp.remove();
  });

  test(`${rounds} times at random moments`, { timeout: 60_000 + rounds * 30_000 }, async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    for (let round = 1; round <= rounds; round++) {
      try {
        await oneRound(round, t);
      } catch (error) {
        const told = daemon
          .log()
          .split('\n')
          .filter((line) => !line.includes('loading plugin'));
        const log = told.slice(-60).join('\n');
        throw new Error(`round ${round}, GANTRY_FAULT_SEED=${random.seed}: ${(error as Error).message}\n${log}`, {
          cause: error,
        });
      }
    }
  });

  async function oneRound(round: number, t: TestContext): Promise<void> {
    const workload = new Workload(world, connection, round);
    await sleep(random.between(5, 400));
    workload.dying();
    await daemon.kill();
    await workload.ended();
    connection.close();
    t.diagnostic(`kill ${round}: ${world.ledger.summary()}`);
    if (workload.failures.length > 0) throw new Error(`before the kill: ${workload.failures.join('\n')}`);
    // Now and then the next one dies too, while it clears up after the first.
    if (random.chance(0.2)) {
      const starting = daemon.start().catch(() => undefined);
      await sleep(random.between(50, 600));
      await daemon.kill();
      await starting;
    }
    await start();
    await checkAnswered(world, connection);
    await resume(world, connection);
    if (round % 10 === 0) await removeEverything(world, connection);
    await collect(world, connection);
    await survey(world, daemon, connection);
  }

  test('leaves nothing behind', async () => {
    const { ledger } = world;
    await removeEverything(world, connection);
    await ledger.images.remove('base', () => connection.images.delete({ name: 'base', sync: true }));
    await survey(world, daemon, connection);
    connection.close();
    await daemon.stop();
    await registry.close();
    await nothingRuns(temp.path);
    for (const folder of cgroupFolders(world.cgroup)) rmdirSync(folder);
  });
});
