// What the CRI plugin keeps beside its records: how each container fares, the files of /etc of each pod, and its shared memory.
import { existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { mountAll, unmountAll } from '@gantry/mount';
import { MNT, readMountInfo } from '@gantry/sys';
import type { ContainerdMetadata } from '../containerd/records.ts';
import { isPlain } from '../survey.ts';

interface Places {
  root: string;
  state: string;
}

interface Kept {
  kind: 'sandboxes' | 'containers';
  id: string;
}

/** Both daemons' name for the plugin's directories, in all releases. */
const plugin = 'io.containerd.grpc.v1.cri';
const kindLabel = 'io.cri-containerd.kind';
const files = { sandboxes: ['hostname', 'hosts', 'resolv.conf'], containers: ['status'] };

function* kept({ namespaces }: ContainerdMetadata): Generator<Kept> {
  for (const { name, containers } of namespaces) {
    if (name !== 'k8s.io') continue;
    for (const { id, labels } of containers) {
      if (!isPlain(id)) continue;
      if (labels[kindLabel] === 'sandbox') yield { kind: 'sandboxes', id };
      if (labels[kindLabel] === 'container') yield { kind: 'containers', id };
    }
  }
}

/** Copies the files, and shows the pods' shared memory where this daemon looks for it. Can be done again. */
export async function takePods(metadata: ContainerdMetadata, from: Places, to: Places): Promise<void> {
  const mounted = new Set(readMountInfo().map(({ mountPoint }) => mountPoint));
  for (const { kind, id } of kept(metadata)) {
    const at = (place: string, ...rest: string[]) => path.join(place, plugin, kind, id, ...rest);
    for (const name of files[kind]) copySmall(at(from.root, name), at(to.root, name));
    if (kind !== 'sandboxes' || !mounted.has(at(from.state, 'shm'))) continue;
    const shm = at(to.state, 'shm');
    mkdirSync(shm, { recursive: true, mode: 0o700 });
    if (!mounted.has(shm)) await mountAll([{ type: 'bind', source: at(from.state, 'shm'), options: ['bind'] }], shm);
  }
}

/** Whole or not there. What is no file, or larger than any of these, is left out. */
function copySmall(from: string, to: string): void {
  const stat = lstatSync(from, { throwIfNoEntry: false });
  if (!stat?.isFile() || stat.size > 1 << 20) return;
  mkdirSync(path.dirname(to), { recursive: true, mode: 0o755 });
  writeFileSync(`${to}.new`, readFileSync(from), { mode: stat.mode & 0o777 });
  renameSync(`${to}.new`, to);
}

/** Takes all that away again; containerd's own is where it was. */
export async function dropTakenPods(metadata: ContainerdMetadata, to: Places): Promise<void> {
  for (const { kind, id } of kept(metadata)) {
    const shm = path.join(to.state, plugin, kind, id, 'shm');
    if (existsSync(shm)) await unmountAll(shm, MNT.DETACH);
    for (const place of [to.root, to.state])
      rmSync(path.join(place, plugin, kind, id), { recursive: true, force: true });
  }
}
