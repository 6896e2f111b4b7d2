import assert from 'node:assert/strict';
import { rmdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, jsonAny } from '@gantry/api';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import { TestDaemon } from '../lib/daemon.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
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
import { createTask, pullImage, removeSnapshot, removeTask, startTask, type World } from './workload.ts';

/**
 * `kill -9` of gantry-shim, with and without the daemon: its containers go on, under the same pids, and can be reached again.
 * Exit codes of what ended in between are told where the kernel still knows them, else 255.
 */
const rounds = faultRounds(8);
const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('gantry-shim killed', { skip }, () => {
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

  const restart = async (kill: () => Promise<void>): Promise<void> => {
    connection.close();
    await kill();
    await start();
  };

  before(async () => {
    const images = await buildKnownImages(path.join(temp.path, 'images'));
    registry = await TestRegistry.start(temp.path);
    const references = new Map([['base', await registry.fill(images.get('base')!.layout, 'fault/base:latest')]]);
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
    for (const id of ['one', 'two']) {
      await createTask(world, connection, id, 'sleep 3600');
      await startTask(world, connection, id);
    }
    await createTask(world, connection, 'ended', 'exit 3');
    await startTask(world, connection, 'ended');
    await connection.tasks.wait({ containerId: 'ended' });
  });

  after(async () => {
    connection?.close();
    await daemon.stop();
    await registry?.close();
    await endProcesses(temp.path);
    removeCgroups(path.basename(temp.path));
    await temp.remove();
  });

  function killShim(): void {
    const shims = processesMentioning(temp.path).filter(({ command }) => command.startsWith('gantry-shim '));
    assert.ok(shims.length > 0, 'no shim runs');
    for (const { pid } of shims) process.kill(pid, 'SIGKILL');
  }

  async function pids(): Promise<Record<string, number>> {
    const { tasks } = await connection.tasks.list({});
    return Object.fromEntries(tasks.map(({ id, pid }) => [id, pid]));
  }

  /** Every task is as it was: the same process, or the same exit code. */
  async function untouched(before: Record<string, number>): Promise<void> {
    await eventually('the tasks are listed again', async () => {
      const now = await pids();
      return Object.keys(before).every((id) => now[id] === before[id]) ? true : undefined;
    });
    for (const id of ['one', 'two']) {
      const { process: state } = await connection.tasks.get({ containerId: id });
      assert.equal(Status[state!.status], 'RUNNING', id);
    }
    const { process: ended } = await connection.tasks.get({ containerId: 'ended' });
    assert.equal(Status[ended!.status], 'STOPPED');
    assert.equal(ended!.exitStatus, 3);
  }

  /** A new process can be run in a container that was there before. */
  async function execWorks(containerId: string, execId: string): Promise<void> {
    const { tasks } = connection;
    const spec = { args: ['sh', '-c', 'exit 4'], cwd: '/', user: { uid: 0, gid: 0 }, env: ['PATH=/bin'] };
    const typeUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
    await tasks.exec({ containerId, execId, spec: jsonAny(typeUrl, JSON.stringify(spec)) });
    const exited = tasks.wait({ containerId, execId });
    await tasks.start({ containerId, execId });
    assert.equal((await exited).exitStatus, 4);
    await tasks.deleteProcess({ containerId, execId });
  }

  test('its containers go on', async () => {
    const before = await pids();
    killShim();
    await untouched(before);
    await execWorks('one', 'e1');
  });

  test('again and again, faster than it is started for ever', async () => {
    const before = await pids();
    for (let death = 0; death < 8; death++) {
      await eventually('another shim', () => {
        try {
          killShim();
          return true;
        } catch {
          return undefined;
        }
      });
    }
    await untouched(before);
    await execWorks('one', 'again');
  });

  test('a wait goes on across it, and tells the exit', async () => {
    await createTask(world, connection, 'waited', 'sleep 3600');
    await startTask(world, connection, 'waited');
    const before = await pids();
    const exited = connection.tasks.wait({ containerId: 'waited' });
    killShim();
    await untouched(before);
    await connection.tasks.kill({ containerId: 'waited', signal: 15 });
    await connection.tasks.kill({ containerId: 'waited', signal: 9 });
    assert.equal((await exited).exitStatus, 137);
    world.ledger.tasks.detail('waited')!.exitCode = 137;
    await removeTask(world, connection, 'waited');
  });

  test('after the daemon was started again', async () => {
    const before = await pids();
    await restart(() => daemon.stop());
    await untouched(before);
    killShim();
    await untouched(before);
    await execWorks('two', 'e2');
  });

  test('together with the daemon', async () => {
    const before = await pids();
    await restart(async () => {
      await daemon.kill();
      killShim();
    });
    await untouched(before);
    await execWorks('two', 'e3');
  });

  test('what ends while it is away', async () => {
    const { tasks } = connection;
    await createTask(world, connection, 'away', 'sleep 0.3; exit 9');
    await startTask(world, connection, 'away');
    const exited = connection.tasks.wait({ containerId: 'away' });
    killShim();
    const { exitStatus } = await exited;
    // The kernel tells of a process that is nobody's child any more only to those who were looking at it.
    assert.ok([9, 255].includes(exitStatus), `ended with ${exitStatus}`);
    assert.equal((await tasks.get({ containerId: 'away' })).process?.exitStatus, exitStatus);
    await removeTask(world, connection, 'away');
  });

  test(`${rounds} times while containers come and go`, { timeout: 60_000 + rounds * 30_000 }, async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    for (let round = 1; round <= rounds; round++) {
      try {
        await comeAndGo(round);
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

  async function comeAndGo(round: number): Promise<void> {
    const before = await pids();
    const client = connection;
    const lanes = [1, 2, 3].map(async (number) => {
      const id = `come-${round}-${number}`;
      for (let turn = 0; turn < 20; turn++) {
        await createTask(world, client, id, 'exit 6');
        await startTask(world, client, id);
        const { exitStatus } = await client.tasks.wait({ containerId: id });
        assert.ok([6, 255].includes(exitStatus), `${id} ended with ${exitStatus}`);
        await removeTask(world, client, id);
      }
    });
    const ended = Promise.allSettled(lanes);
    await sleep(random.between(5, 250));
    killShim();
    if (random.chance(0.3)) {
      await sleep(random.between(1, 100));
      await restart(() => daemon.kill());
    }
    await ended;
    await untouched(before);
    await finish();
    await collect(world, connection);
    await survey(world, daemon, connection);
  }

  /** Removes what a call had begun when it was cut off, and makes it again under the same name. */
  async function finish(): Promise<void> {
    const { ledger } = world;
    const { tasks, containers, snapshots } = connection;
    const kept = ['one', 'two', 'ended'];
    const left = new Set([...ledger.snapshots.ids(), ...ledger.containers.ids(), ...ledger.tasks.ids()]);
    for (const id of [...left].filter((name) => !kept.includes(name))) {
      if ((await pids())[id] !== undefined) {
        const exited = tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
        exited.catch(() => undefined);
        await tasks.kill({ containerId: id, signal: 9 }).catch(ignoreNotFound);
        await exited;
        await tasks.delete({ containerId: id });
      }
      ledger.tasks.entries.delete(id);
      await containers.delete({ id }).catch(ignoreNotFound);
      ledger.containers.entries.delete(id);
      const there = await snapshots.stat({ snapshotter: 'overlayfs', key: id }).catch(ignoreNotFound);
      if (there) await removeSnapshot(world, connection, id);
      else ledger.snapshots.entries.delete(id);
      await createTask(world, connection, id, 'exit 5');
      await startTask(world, connection, id);
      const { exitStatus } = await tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
      assert.equal(exitStatus, 5, `exit code of ${id}, made again`);
      await removeTask(world, connection, id);
    }
  }

  test('leaves nothing behind', async () => {
    await removeEverything(world, connection);
    await world.ledger.images.remove('base', () => connection.images.delete({ name: 'base', sync: true }));
    await survey(world, daemon, connection);
    connection.close();
    await daemon.stop();
    await registry.close();
    await nothingRuns(temp.path);
    for (const folder of cgroupFolders(world.cgroup)) rmdirSync(folder);
  });
});

function ignoreNotFound(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}
