import assert from 'node:assert/strict';
import { rmdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { missingBtrfs } from '../../packages/daemon/src/plugins/snapshot-btrfs/testing-filesystem.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';
import { checkAnswered, checkBlob, checkImage, checkWhole, found } from './after-restart.ts';
import { type Connection, connect } from './connection.ts';
import { buildArchivedImage, buildKnownImages, type KnownImage } from './fault-images.ts';
import { Book, Ledger } from './ledger.ts';
import { type DiskKind, PowerDisk } from './power-disk.ts';
import { Random } from './random.ts';
import { checkRecords, recordLife, removeRecords } from './records-workload.ts';
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
import { createTask, pullImage, removeTask, startTask, Workload, type World, writeBlob } from './workload.ts';

/**
 * Power cuts: the daemon's root lies on a disk of its own (`power-disk.ts`), which is cloned at random moments while clients work. A
 * daemon started on each clone has what was answered before, shows nothing half-made, and its records and its disk agree.
 */
const rounds = faultRounds(3);
const skip = missingBtrfs();
/** The most cuts in one burst of work; they are looked at when it is over. */
const atOnce = 4;

const archivedName = 'docker.io/library/archived:latest';

/** What a cut has left, and what clients had been answered by then. */
interface Cut {
  file: string;
  ledger: Ledger;
}

class PowerCuts {
  readonly #temp = makeTempDir('power');
  readonly #random = Random.fromEnvironment();
  readonly #daemon = new TestDaemon(path.join(this.#temp.path, 'd'));
  readonly #kind: DiskKind;
  #disk!: PowerDisk;
  #registry: TestRegistry | undefined;
  #world!: World;
  #archived!: KnownImage & { archive: string };
  #connection: Connection | undefined;
  #records: Connection | undefined;

  constructor(kind: DiskKind) {
    this.#kind = kind;
  }

  async setUp(): Promise<void> {
    const { path: directory } = this.#temp;
    this.#disk = PowerDisk.create(directory, this.#daemon.root, this.#kind);
    const images = await buildKnownImages(path.join(directory, 'images'));
    this.#archived = await buildArchivedImage(path.join(directory, 'images'), archivedName);
    this.#registry = await TestRegistry.start(directory);
    const references = new Map<string, string>();
    for (const [name, { layout }] of images) {
      references.set(name, await this.#registry.fill(layout, `fault/${name}:latest`));
    }
    images.set(archivedName, this.#archived);
    this.#world = {
      directory,
      namespace: 'fault',
      lease: 'kept',
      cgroup: path.basename(directory),
      random: this.#random,
      ledger: new Ledger(),
      images,
      references,
    };
    await this.#daemon.start();
    this.#connection = connect(this.#daemon.address, this.#world.namespace);
    this.#records = connect(this.#daemon.address, 'records');
    await this.#connection.ready(60_000);
    await this.#connection.leases.create({ id: this.#world.lease });
    await pullImage(this.#world, this.#connection, 'base');
  }

  async tearDown(): Promise<void> {
    this.#connection?.close();
    this.#records?.close();
    await this.#daemon.stop();
    await this.#registry?.close();
    await endProcesses(this.#temp.path);
    removeCgroups(path.basename(this.#temp.path));
    await this.#temp.remove();
  }

  async run(t: TestContext, count: number): Promise<void> {
    t.diagnostic(`GANTRY_FAULT_SEED=${this.#random.seed}`);
    for (let done = 0, burst = 1; done < count; burst++) {
      const cuts = await this.#burst(burst, Math.min(count - done, this.#random.between(1, atOnce)));
      for (const cut of cuts) {
        const answered = cut.ledger.summary();
        const remade = await this.#look(cut, ++done);
        t.diagnostic(`cut ${done}: ${remade} layers unpacked again; ${answered}`);
      }
      if (burst % 4 === 0) await this.#clear();
    }
  }

  /** A time of work, and what the cuts in it have left. */
  async #burst(number: number, count: number): Promise<Cut[]> {
    const { ledger } = this.#world;
    const { content } = this.#connection!;
    const workload = new Workload(this.#world, this.#connection!, number, {
      records: (name) => recordLife(this.#records!, ledger.records, this.#random, `records-${name}`),
      import: () => this.#import(),
      abort: async (ref) => {
        const bytes = Buffer.alloc(this.#random.between(1, 200_000), ref);
        ledger.ingests.set(ref, { bytes, digest: '', written: 0, committing: false });
        await this.#beginBlob(ref, bytes);
        if (this.#random.chance(0.2)) return;
        await content.abort({ ref }, { lease: this.#world.lease });
        ledger.ingests.delete(ref);
      },
    });
    const cuts: Cut[] = [];
    for (let cut = 0; cut < count; cut++) {
      await sleep(this.#random.between(5, 1200));
      // Together: while the file is cloned this process, and with it every client, stands still.
      cuts.push({ ledger: ledger.copy(), file: this.#disk.cut() });
    }
    await workload.stop();
    if (workload.failures.length > 0) throw new Error(`while working: ${workload.failures.join('\n')}`);
    return cuts;
  }

  async #import(): Promise<void> {
    const { ledger, namespace } = this.#world;
    const name = archivedName;
    if (ledger.images.entries.has(name)) {
      await sleep(this.#random.between(5, 50));
      return;
    }
    await ledger.images.make(name, undefined, () =>
      run(bin.ctr, ['-a', this.#daemon.address, '-n', namespace, 'images', 'import', this.#archived.archive]),
    );
  }

  /** Writes without committing. */
  async #beginBlob(ref: string, bytes: Buffer): Promise<void> {
    const { content } = this.#connection!;
    async function* requests() {
      yield { action: 1, ref, offset: 0n, data: bytes };
    }
    for await (const _ of content.write(requests(), { lease: this.#world.lease }));
    const plan = this.#world.ledger.ingests.get(ref);
    if (plan) plan.written = bytes.length;
  }

  async #clear(): Promise<void> {
    const { ledger } = this.#world;
    await removeRecords(this.#records!, ledger.records);
    await removeEverything(this.#world, this.#connection!);
    await collect(this.#world, this.#connection!);
    ledger.ingests.clear();
    await survey(this.#world, this.#daemon, this.#connection!);
  }

  /** Power is back: what a daemon finds on the disk of one cut. Answers how many layers it had to unpack again. */
  async #look({ file, ledger }: Cut, number: number): Promise<number> {
    const directory = path.join(this.#temp.path, `c${number}`);
    const daemon = new TestDaemon(directory);
    // What is not on the disk does not come back from a power cut: processes, cgroups, /run.
    ledger.tasks = new Book();
    const world: World = { ...this.#world, ledger, directory: `${directory}-w`, cgroup: `${this.#world.cgroup}-c` };
    this.#disk.mount(file, daemon.root);
    try {
      await this.#check(world, daemon);
      await endProcesses(directory);
      assert.deepEqual(mountsBeneath(directory), [daemon.root], 'mounts');
      const complaints = daemon
        .log()
        .split('\n')
        .filter((line) => line.includes('level=error'));
      assert.deepEqual(complaints, [], 'errors in the log');
    } catch (error) {
      const told = daemon.log().split('\n');
      const log = told
        .filter((line) => !line.includes('loading plugin'))
        .slice(-40)
        .join('\n');
      const seed = this.#random.seed;
      throw new Error(`cut ${number}, GANTRY_FAULT_SEED=${seed}: ${(error as Error).message}\n${log}`, {
        cause: error,
      });
    } finally {
      await daemon.kill();
      await endProcesses(directory);
      removeCgroups(world.cgroup);
    }
    this.#disk.discard(file, daemon.root);
    return daemon.log().split('unpacked again').length - 1;
  }

  async #check(world: World, daemon: TestDaemon): Promise<void> {
    for (const start of ['first', 'second']) {
      await daemon.start();
      const connection = connect(daemon.address, world.namespace);
      const records = connect(daemon.address, 'records');
      try {
        await connection.ready(60_000);
        await checkWhole(world, connection);
        await checkRecords(records, world.ledger.records);
        await checkAnswered(world, connection);
        if (start === 'first') await this.#goOn(world, connection);
        await collect(world, connection);
        await survey(world, daemon, connection);
        if (start === 'second') await this.#use(world, connection);
      } finally {
        connection.close();
        records.close();
      }
      await daemon.stop();
    }
  }

  /** Ingests go on from where they are, or anew, or are aborted. */
  async #goOn(world: World, connection: Connection): Promise<void> {
    const { content } = connection;
    for (const [ref, plan] of [...world.ledger.ingests]) {
      const { ledger, lease } = world;
      const begun = await found(content.status({ ref }));
      const there = plan.digest !== '' && ledger.blobs.entries.get(plan.digest)?.fate === 'there';
      if (plan.digest === '' || there || this.#random.chance(0.3)) {
        if (begun) await content.abort({ ref }, { lease });
        ledger.ingests.delete(ref);
      } else {
        await writeBlob(world, connection, ref);
        await checkBlob(connection, plan.digest);
      }
    }
  }

  /** The same pulls work again, and a container of what they brought runs. */
  async #use(world: World, connection: Connection): Promise<void> {
    const missing = [...world.references.keys()].filter((name) => !world.ledger.images.entries.has(name));
    if (missing.length > 0) {
      const name = this.#random.pick(missing);
      await pullImage(world, connection, name);
      await checkImage(world, connection, name);
    }
    await createTask(world, connection, 'after', 'exit 7');
    await startTask(world, connection, 'after');
    const { exitStatus } = await connection.tasks.wait({ containerId: 'after' }, { timeoutMs: 60_000 });
    assert.equal(exitStatus, 7);
    await removeTask(world, connection, 'after');
  }

  async end(): Promise<void> {
    const { ledger, cgroup } = this.#world;
    await this.#clear();
    await ledger.images.remove('base', () => this.#connection!.images.delete({ name: 'base', sync: true }));
    await survey(this.#world, this.#daemon, this.#connection!);
    this.#connection!.close();
    this.#records!.close();
    await this.#daemon.stop();
    await this.#registry!.close();
    await nothingRuns(this.#temp.path);
    for (const folder of cgroupFolders(cgroup)) rmdirSync(folder);
  }
}

for (const [kind, count] of [
  ['ext4', rounds],
  ['btrfs', Math.ceil(rounds / 5)],
] as const) {
  describe(`a power cut, root on ${kind}`, { skip }, () => {
    // Not before it is sure to run: it makes a directory.
    let cuts: PowerCuts;
    before(async () => {
      cuts = new PowerCuts(kind);
      await cuts.setUp();
    });
    after(() => cuts.tearDown());
    test(`${count} times at random moments`, (t) => cuts.run(t, count));
    test('leaves nothing behind', () => cuts.end());
  });
}
