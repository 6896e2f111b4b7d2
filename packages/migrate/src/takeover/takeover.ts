// The takeover, step by step. Each can be done again, and only the last one makes the root fit for a daemon; so one that was killed is
// run again.
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { failedPrecondition, formatTime, now } from '@gantry/api';
import { LmdbStore } from '@gantry/daemon/core/metadata/lmdb-store.ts';
import {
  fingerprintOf,
  readTakeover,
  type TakeoverState,
  writeTakeover,
} from '@gantry/daemon/core/takeover/takeover-state.ts';
import { lockRoot } from '@gantry/daemon/server/lock.ts';
import { syncfs } from '@gantry/sys';
import { BoltFile } from '../bolt/bolt-file.ts';
import type { CarriedConfig } from '../carry-config.ts';
import type { ContainerdPlace, GantryPlace } from '../places.ts';
import { contentRootOf, metadataFileIn, type Survey, type SurveyOptions, surveyOf, unsoundKey } from '../survey.ts';
import { assertApart } from './apart.ts';
import { lockHolder } from './lock-holder.ts';
import { conflicts, namespaceEntries, putTaken } from './records.ts';
import { type TakenContent, takeContent } from './take-content.ts';
import { takePods } from './take-pods.ts';
import { type PlannedSnapshot, planSnapshots, takeable, takeSnapshots } from './take-snapshots.ts';
import { planTasks, type TaskPlan, takeTasks } from './take-tasks.ts';

/** What would be, or was, done. */
export interface Takeover {
  survey: Survey;
  snapshots: ReadonlyMap<string, readonly PlannedSnapshot[]>;
  tasks: TaskPlan;
  /** Undefined if it was only looked at. */
  content: TakenContent | undefined;
  config?: CarriedConfig | undefined;
  /** What is not taken, or not as it is, each a sentence. */
  problems: string[];
}

export interface TakeoverOptions {
  from: ContainerdPlace;
  to: GantryPlace;
  dryRun: boolean;
  /** Brings the configuration over, if there is none here. */
  carryConfig?: () => CarriedConfig;
}

/**
 * Takes over from a containerd that is stopped. It cannot start meanwhile.
 * @throws StatusError FailedPrecondition while it runs, while a daemon of ours runs there, or if this was done already
 */
export async function takeOver({ from, to, dryRun, carryConfig }: TakeoverOptions): Promise<Takeover> {
  assertApart(from, to);
  if (!dryRun) assertNotDone(to.root);
  await assertStopped(from);
  const file = metadataFileIn(from.root);
  using metadata = openMetadata(file);
  const options: SurveyOptions = { ...from, snapshotters: takeable };
  if (dryRun) return plan(metadata, options, to);
  for (const [folder, mode] of [
    [to.root, 0o700],
    [to.state, 0o711],
  ] as const)
    mkdirSync(folder, { recursive: true, mode });
  const unlock = lockRoot(to.root);
  try {
    assertNotDone(to.root);
    const state: Omit<TakeoverState, 'phase' | 'at'> = {
      version: 1,
      from: { root: from.root, state: from.state, address: from.address, ttrpcAddress: from.ttrpcAddress },
      metadata: { file, fingerprint: fingerprintOf(file)! },
    };
    const result = plan(metadata, options, to);
    await assertNoConflict(result.survey, to.metadataFile);
    writeTakeover(to.root, { ...state, phase: 'started', at: formatTime(now()) });
    result.content = await takeContent(digests(result.survey), contentRootOf(options), to.contentRoot);
    for (const snapshotter of takeable) {
      const root = to.snapshotterRoot(snapshotter);
      const planned = result.snapshots.get(snapshotter) ?? [];
      // An earlier takeover may have left some that are not there any more.
      if (planned.length === 0 && !existsSync(path.join(root, 'metadata.lmdb'))) continue;
      for (const name of await takeSnapshots(snapshotter, planned, root))
        result.problems.push(`snapshot ${name} of ${snapshotter}: containerd has removed it, but others here need it`);
    }
    await writeRecords(result, to.metadataFile);
    takeTasks(result.tasks, to, from.ttrpcAddress);
    await takePods(result.survey.metadata, from, to);
    result.config = carryConfig?.();
    // Any of them may be a filesystem of its own.
    const places = [to.root, to.contentRoot, ...takeable.map((name) => to.snapshotterRoot(name))];
    for (const place of places.filter((one) => existsSync(one))) await syncFilesystem(place);
    writeTakeover(to.root, { ...state, phase: 'done', at: formatTime(now()) });
    return result;
  } finally {
    unlock();
  }
}

function assertNotDone(root: string): void {
  const before = readTakeover(root);
  if (before?.phase !== 'done') return;
  throw failedPrecondition(
    `${root}: has been taken over from ${before.from.root} at ${before.at}; start gantryd on it, or go back with --back first`,
  );
}

/** @throws StatusError FailedPrecondition that names the containers and sandboxes that both have and that did not come from there */
async function assertNoConflict({ metadata }: Survey, file: string): Promise<void> {
  if (!existsSync(file)) return;
  const store = await LmdbStore.open({ path: file });
  try {
    const both = store.view((tx) => conflicts(tx, metadata));
    if (both.length > 0)
      throw failedPrecondition(`both here and at containerd, so one of each pair has to go first: ${both.join(', ')}`);
  } finally {
    await store.close();
  }
}

function plan(metadata: BoltFile, options: SurveyOptions, to: GantryPlace): Takeover {
  const found = surveyOf(metadata, options);
  const tasks = planTasks(found, to);
  const snapshots = planSnapshots(found, options);
  return { survey: found, snapshots, tasks, content: undefined, problems: [...found.problems, ...tasks.problems] };
}

function* digests({ metadata, unsound }: Survey): Generator<string> {
  const seen = new Set<string>();
  for (const { name: namespace, content } of metadata.namespaces) {
    for (const { digest } of content) {
      if (seen.has(digest) || unsound.has(unsoundKey({ kind: 'blob', namespace, digest }))) continue;
      seen.add(digest);
      yield digest;
    }
  }
}

async function writeRecords({ survey, snapshots }: Takeover, file: string): Promise<void> {
  const planned = [...snapshots.values()].flat();
  const store = await LmdbStore.open({ path: file });
  try {
    await putTaken(
      store,
      survey.metadata.namespaces.flatMap((namespace) => [
        ...namespaceEntries(
          namespace,
          (digest) => !survey.unsound.has(unsoundKey({ kind: 'blob', namespace: namespace.name, digest })),
          planned.filter((one) => one.namespace === namespace.name),
        ),
      ]),
    );
  } finally {
    await store.close();
  }
}

async function syncFilesystem(folder: string): Promise<void> {
  const fd = openSync(folder, 'r');
  try {
    await syncfs(fd);
  } finally {
    closeSync(fd);
  }
}

/** @throws StatusError FailedPrecondition if somebody answers at containerd's socket */
export async function assertStopped({ address, root }: Pick<ContainerdPlace, 'address' | 'root'>): Promise<void> {
  if (await somebodyListens(address))
    throw failedPrecondition(`containerd runs: it answers at ${address}; stop it first (it has ${root})`);
}

function somebodyListens(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ path: address });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** @throws StatusError FailedPrecondition that names the process which has the file open for writing */
export function openMetadata(file: string): BoltFile {
  try {
    return new BoltFile(file);
  } catch (error) {
    const holder = lockHolder(file);
    if (holder === undefined || !(error as Error).message.includes('in use')) throw error;
    throw failedPrecondition(`${(error as Error).message}: containerd runs (process ${holder}); stop it first`, error);
  }
}
