import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { jsonAny, packAny, TypeUrl } from '@gantry/api';
import { WriteAction } from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { Mount } from '@gantry/api/gen/types/mount_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { defaultSpec, withImageConfig } from '@gantry/oci';
import type { Connection } from './connection.ts';
import type { KnownImage } from './fault-images.ts';
import type { Ledger, SnapshotFiles, TaskPlan } from './ledger.ts';
import type { Random } from './random.ts';

/** Everything that the clients of a fault test share. */
export interface World {
  readonly directory: string;
  readonly namespace: string;
  /** A lease without end, under which blobs and snapshots are made. */
  readonly lease: string;
  /** Cgroup folder of the containers. */
  readonly cgroup: string;
  readonly random: Random;
  readonly ledger: Ledger;
  readonly images: ReadonlyMap<string, KnownImage>;
  /** By name of the image. */
  readonly references: ReadonlyMap<string, string>;
}

const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch };
export const snapshotter = 'overlayfs';
const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export async function pullImage(world: World, { transfer }: Connection, name: string): Promise<void> {
  const reference = world.references.get(name) ?? '';
  await world.ledger.images.make(name, undefined, () =>
    transfer.transfer({
      source: packAny(OCIRegistrySchema, { reference, resolver: { defaultScheme: 'http' } }),
      destination: packAny(ImageStoreSchema, {
        name,
        platforms: [platform],
        unpacks: [{ platform, snapshotter }],
      }),
    }),
  );
}

/** Writes a blob in pieces through one call, from where the ingest stands; `pause` comes between pieces. */
export async function writeBlob(
  world: World,
  { content }: Connection,
  ref: string,
  pause: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const { ledger, lease } = world;
  const plan = ledger.ingests.get(ref);
  if (!plan) throw new Error(`no ingest ${ref} is planned`);
  const { bytes, digest } = plan;
  const turns: ((offset: number) => void)[] = [];
  const answered = () => new Promise<number>((resolve) => turns.push(resolve));
  let failed = false;
  async function* requests() {
    const total = BigInt(bytes.length);
    let answer = answered();
    yield { action: WriteAction.STAT, ref, total, expected: digest };
    let offset = await answer;
    while (!failed && offset < bytes.length) {
      const data = bytes.subarray(offset, offset + 32 * 1024);
      answer = answered();
      yield { action: WriteAction.WRITE, ref, offset: BigInt(offset), data };
      offset = await answer;
      if (!failed) plan!.written = offset;
      await pause();
    }
    if (failed) return;
    ledger.blobs.entries.set(digest, { fate: 'unclear', detail: bytes });
    plan!.committing = true;
    yield { action: WriteAction.COMMIT, ref, total, offset: total, expected: digest };
  }
  try {
    for await (const { action, offset } of content.write(requests(), { lease })) {
      if (action !== WriteAction.COMMIT) turns.shift()?.(Number(offset));
    }
  } finally {
    failed = true;
    for (const turn of turns) turn(0);
  }
  ledger.blobs.entries.set(digest, { fate: 'there', detail: bytes });
  ledger.blobs.answered++;
  ledger.ingests.delete(ref);
}

/** A snapshot on the base image, a container on it, and a task in it with a shell command. */
export async function createTask(world: World, connection: Connection, id: string, command: string): Promise<void> {
  const { ledger, lease, images } = world;
  const parent = images.get('base')?.chainIds.at(-1) ?? '';
  const { mounts } = await ledger.snapshots.make(id, undefined, () =>
    connection.snapshots.prepare({ snapshotter, key: id, parent }, { lease }),
  );
  const labels = { made: world.random.between(0, 1e9).toString() };
  const container = containerFor(world, id, command, labels);
  await ledger.containers.make(id, labels, () => connection.containers.create({ container }));
  const plan: TaskPlan = { exitCode: exitCodeOf(command), started: false, signalled: false };
  await ledger.tasks.make(id, plan, () => connection.tasks.create({ containerId: id, rootfs: mounts }));
}

export function containerFor(world: World, id: string, command: string, labels: Record<string, string>) {
  const spec = defaultSpec(world.namespace, id);
  withImageConfig(spec, { Env: ['PATH=/bin', `GANTRY_FAULT=${world.directory}`] }, ['sh', '-c', command]);
  spec.linux!.cgroupsPath = `/${world.cgroup}/${id}`;
  const options = packAny(OptionsSchema, { binaryName: 'runc', root: `${world.directory}/runc` });
  return {
    id,
    labels,
    image: 'base',
    runtime: { name: 'io.containerd.runc.v2', options },
    spec: jsonAny(TypeUrl.RuntimeSpec, JSON.stringify(spec)),
    snapshotter,
    snapshotKey: id,
  };
}

function exitCodeOf(command: string): number | undefined {
  const code = /exit (\d+)$/.exec(command)?.[1];
  return code === undefined ? undefined : Number(code);
}

export async function startTask({ ledger }: World, { tasks }: Connection, id: string): Promise<void> {
  await tasks.start({ containerId: id });
  const plan = ledger.tasks.detail(id);
  if (plan) plan.started = true;
}

/** Ends a task by signal if it runs, and removes it with its container and snapshot. */
export async function removeTask(world: World, connection: Connection, id: string): Promise<void> {
  const { ledger } = world;
  const { tasks, containers } = connection;
  const plan = ledger.tasks.detail(id);
  if (plan && plan.exitCode === undefined && plan.started) {
    plan.signalled = true;
    const exited = tasks.wait({ containerId: id });
    exited.catch(() => undefined);
    await tasks.kill({ containerId: id, signal: 9, all: true });
    await exited;
  } else {
    await tasks.wait({ containerId: id });
  }
  await ledger.tasks.remove(id, () => tasks.delete({ containerId: id }));
  await ledger.containers.remove(id, () => containers.delete({ id }));
  await removeSnapshot(world, connection, id);
}

export async function removeSnapshot({ ledger, lease }: World, { snapshots }: Connection, key: string): Promise<void> {
  await ledger.snapshots.remove(key, () => snapshots.remove({ snapshotter, key }, { lease }));
}

/** One client's work, done again and again. */
export type Lane = (name: string) => Promise<void>;

/** Writes files of random size and content into a prepared snapshot, as a differ does; answers their hashes. */
function fillSnapshot(random: Random, mounts: readonly Mount[]): SnapshotFiles {
  const [mount] = mounts;
  const upper = mount?.options.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length);
  const directory = upper ?? mount?.source ?? '';
  const files = new Map<string, string>();
  for (let number = random.between(0, 25); number > 0; number--) {
    const name = path.join(`folder-${number % 3}`, `file-${number}`);
    const bytes = randomBytes(random.between(1, 30_000));
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), bytes);
    files.set(name, digestOf(bytes));
  }
  return files;
}

/** Clients that work, each in its own lane, until the daemon is gone under them. */
export class Workload {
  readonly failures: string[] = [];
  readonly #world: World;
  readonly #connection: Connection;
  readonly #round: number;
  readonly #lanes: Promise<void>[] = [];
  #dying = false;
  #stopping = false;
  #number = 0;

  /** @param more further lanes; each is given names for what it makes */
  constructor(world: World, connection: Connection, round: number, more: Readonly<Record<string, Lane>> = {}) {
    this.#world = world;
    this.#connection = connection;
    this.#round = round;
    const lanes: Record<string, () => Promise<void>> = {
      pull: () => this.#pullAndRemove(),
      ingest: () => this.#ingest(),
      snapshots: () => this.#snapshots(),
      tasks: () => this.#task(),
      'more tasks': () => this.#task(),
      leases: () => this.#lease(),
    };
    for (const [name, lane] of Object.entries(more)) lanes[name] = () => lane(this.#id(name));
    // Not all each time: the fewer, the further each gets.
    const chosen = Object.keys(lanes).filter(() => world.random.chance(0.6));
    for (const name of chosen.length > 0 ? chosen : ['pull']) this.#lane(name, lanes[name]!);
  }

  /** Lets every client end what it is at, with a daemon that goes on. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.ended();
  }

  /** From now on errors are the daemon's death. */
  dying(): void {
    this.#dying = true;
  }

  /** Settles when every client has noticed. */
  async ended(): Promise<void> {
    await Promise.all(this.#lanes);
  }

  #lane(name: string, step: () => Promise<void>): void {
    const run = async () => {
      while (!this.#dying && !this.#stopping) {
        try {
          await step();
        } catch (error) {
          if (this.#dying) return;
          this.failures.push(`${name}: ${(error as Error).stack ?? error}`);
          return;
        }
      }
    };
    this.#lanes.push(run());
  }

  #id(kind: string): string {
    return `${kind}-${this.#round}-${++this.#number}`;
  }

  /** Pulls one image while another is removed, each removal with a collection. */
  async #pullAndRemove(): Promise<void> {
    const { random, ledger, references } = this.#world;
    const { images } = this.#connection;
    const present = ledger.images.ids('there').filter((name) => name !== 'base');
    const missing = [...references.keys()].filter((name) => name !== 'base' && !present.includes(name));
    const work: Promise<unknown>[] = [];
    if (missing.length > 0) work.push(pullImage(this.#world, this.#connection, random.pick(missing)));
    if (present.length > 0) {
      const name = random.pick(present);
      work.push(ledger.images.remove(name, () => images.delete({ name, sync: random.chance(0.5) })));
    }
    await Promise.all(work);
  }

  async #ingest(): Promise<void> {
    const { random, ledger, lease } = this.#world;
    const { content } = this.#connection;
    const ref = this.#id('ingest');
    const bytes = randomBytes(random.between(0, 600_000));
    ledger.ingests.set(ref, { bytes, digest: digestOf(bytes), written: 0, committing: false });
    await writeBlob(this.#world, this.#connection, ref, () => sleep(random.between(0, 5)));
    if (ledger.blobs.entries.size < 12) return;
    const digest = ledger.blobs.ids('there')[0];
    if (digest) await ledger.blobs.remove(digest, () => content.delete({ digest }, { lease }));
  }

  async #snapshots(): Promise<void> {
    const { random, ledger, lease, images } = this.#world;
    const { snapshots } = this.#connection;
    const parent = random.chance(0.5) ? (images.get('base')?.chainIds.at(-1) ?? '') : '';
    const key = this.#id('active');
    const name = this.#id('committed');
    const view = this.#id('view');
    const { mounts } = await ledger.snapshots.make(key, undefined, () =>
      snapshots.prepare({ snapshotter, key, parent }, { lease }),
    );
    if (random.chance(0.2)) return;
    const files = fillSnapshot(random, mounts);
    const active = ledger.snapshots.entries.get(key)!;
    active.fate = 'unclear';
    await ledger.snapshots.make(name, files, () => snapshots.commit({ snapshotter, name, key }, { lease }));
    ledger.snapshots.entries.delete(key);
    await ledger.snapshots.make(view, undefined, () =>
      snapshots.view({ snapshotter, key: view, parent: name }, { lease }),
    );
    if (random.chance(0.2)) return;
    await removeSnapshot(this.#world, this.#connection, view);
    await removeSnapshot(this.#world, this.#connection, name);
  }

  async #task(): Promise<void> {
    const { random, ledger } = this.#world;
    const id = this.#id('task');
    const code = random.between(1, 120);
    const kind = random.pick(['short', 'short', 'away', 'long']);
    const command = {
      short: `exit ${code}`,
      away: `sleep 0.${random.between(1, 9)}; exit ${code}`,
      long: 'sleep 3600',
    }[kind]!;
    await createTask(this.#world, this.#connection, id, command);
    await startTask(this.#world, this.#connection, id);
    if (kind === 'short') {
      const { exitStatus } = await this.#connection.tasks.wait({ containerId: id });
      if (exitStatus !== code) throw new Error(`${id} ended with ${exitStatus}, not ${code}`);
      await removeTask(this.#world, this.#connection, id);
    }
    const idle = ledger.tasks.ids('there').filter((other) => ledger.tasks.detail(other)?.started && other !== id);
    const oldest = idle[0];
    if (idle.length > 6 && oldest) {
      // Taken by one lane only.
      ledger.tasks.entries.get(oldest)!.fate = 'unclear';
      await removeTask(this.#world, this.#connection, oldest);
    }
  }

  async #lease(): Promise<void> {
    const { random, ledger } = this.#world;
    const { leases } = this.#connection;
    const id = this.#id('lease');
    await ledger.leases.make(id, undefined, () => leases.create({ id, labels: { made: 'by a test' } }));
    if (random.chance(0.3)) return;
    await ledger.leases.remove(id, () => leases.delete({ id, sync: random.chance(0.3) }));
    await sleep(random.between(0, 10));
  }
}
