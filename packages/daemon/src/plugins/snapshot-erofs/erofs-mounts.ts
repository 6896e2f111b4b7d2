/** The mounts that show a snapshot, as containerd's erofs snapshotter gives them: images, and an overlay over what they show. */
import path from 'node:path';
import { failedPrecondition, unknown } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import { idMappingOf } from '../../core/snapshots/snapshot-labels.ts';
import type { StoredSnapshot } from '../../core/snapshots/snapshot-storage.ts';
import { hasVerity } from './file-flags.ts';
import { exists, imageName, upperName, verityName } from './layer-files.ts';

export type VerityMode = 'auto' | 'on' | 'off';

export interface ErofsMountSettings {
  /** Directory of a snapshot by its number. */
  directoryOf: (id: number) => string;
  /** Further overlay options. */
  overlayOptions: readonly string[];
  /** Bytes of a writable file system for each active snapshot; 0: a directory. */
  writableSize: number;
  verityMode: VerityMode;
  /** Images have to be protected by fs-verity. */
  fsverity: boolean;
  /** Id mappings in labels become mount options. */
  remapIds: boolean;
}

export const writableName = 'rwlayer.img';
const mergedName = 'fsmeta.erofs';

export class ErofsMounts {
  readonly #settings: ErofsMountSettings;

  constructor(settings: ErofsMountSettings) {
    this.#settings = settings;
  }

  async of(snapshot: StoredSnapshot): Promise<Mount[]> {
    const { id, info, parents } = snapshot;
    const active = info.kind === 'active';
    const [nearest] = parents;
    if (nearest === undefined) return await this.#ofBottom(snapshot);
    if (!active && parents.length === 1) return [await this.#image(nearest)];

    const mounts: Mount[] = active && this.#settings.writableSize > 0 ? [this.#writable(id, 'rw')] : [];
    const first = mounts.length;
    for (const [index, parent] of parents.entries()) {
      const merged = await this.#merged(parents, index);
      mounts.push(merged ?? (await this.#image(parent)));
      if (merged) break;
    }
    const options = this.#overlayOptions(snapshot);
    if (mounts.length - first === 1) {
      // One layer only, which overlayfs takes no part in.
      const source = `{{ mount ${first} }}`;
      if (!active)
        return [...mounts, { type: 'format/bind', source, target: '', options: [...options, 'ro', 'rbind'] }];
      options.push(`lowerdir=${source}`);
    } else options.push(`lowerdir={{ overlay ${first} ${mounts.length - 1} }}`);
    options.push(...this.#settings.overlayOptions);
    return [...mounts, { type: 'format/mkdir/overlay', source: 'overlay', target: '', options }];
  }

  #overlayOptions({ id, info }: StoredSnapshot): string[] {
    const options: string[] = [];
    if (info.kind === 'active' && this.#settings.writableSize > 0) {
      options.push(
        'X-containerd.mkdir.path={{ mount 0 }}/upper:0755',
        'X-containerd.mkdir.path={{ mount 0 }}/work:0755',
        'workdir={{ mount 0 }}/work',
        'upperdir={{ mount 0 }}/upper',
      );
    } else if (info.kind === 'active') {
      options.push(`workdir=${this.#file(id, 'work')}`, `upperdir=${this.#file(id, upperName)}`);
    }
    const mapping = this.#settings.remapIds ? idMappingOf(info.labels) : undefined;
    if (mapping) options.push(`uidmap=${mapping.uidmap}`, `gidmap=${mapping.gidmap}`);
    return options;
  }

  /** A snapshot without parents: an image, an empty directory, or a writable file system. */
  async #ofBottom({ id, info }: StoredSnapshot): Promise<Mount[]> {
    if (await exists(this.#file(id, imageName))) {
      if (info.kind === 'active') {
        throw failedPrecondition(`snapshot ${info.name} has its image already, it can only be committed`);
      }
      return [await this.#image(id)];
    }
    const access = info.kind === 'active' ? 'rw' : 'ro';
    if (this.#settings.writableSize === 0) {
      return [{ type: 'bind', source: this.#file(id, upperName), target: '', options: [access, 'rbind'] }];
    }
    const options = ['X-containerd.mkdir.path={{ mount 0 }}/upper:0755', access, 'rbind'];
    return [
      this.#writable(id, access),
      { type: 'format/mkdir/bind', source: '{{ mount 0 }}/upper', target: '', options },
    ];
  }

  #writable(id: number, access: string): Mount {
    const size = `X-containerd.mkfs.size=${this.#settings.writableSize}`;
    const options = ['X-containerd.mkfs.fs=ext4', size, access, 'loop'];
    return { type: 'mkfs/ext4', source: this.#file(id, writableName), target: '', options };
  }

  async #image(id: number): Promise<Mount> {
    const source = this.#file(id, imageName);
    if (!(await exists(source))) throw unknown(`failed to find valid erofs layer blob: ${source}`);
    if (this.#settings.fsverity && !(await hasVerity(source))) throw unknown(`fsverity is not enabled on ${source}`);
    const options = ['ro', 'loop'];
    const metadata = await this.#verity(id);
    if (metadata !== undefined) options.push(`X-containerd.dmverity=${metadata}`);
    return { type: 'erofs', source, target: '', options };
  }

  async #verity(id: number): Promise<string | undefined> {
    const { verityMode } = this.#settings;
    if (verityMode === 'off') return undefined;
    const metadata = this.#file(id, verityName);
    if (await exists(metadata)) return metadata;
    if (verityMode === 'auto') return undefined;
    throw failedPrecondition(
      `dm-verity mode is 'on' but .dmverity metadata not found for layer ${this.#file(id, imageName)}: it was made before ` +
        `dm-verity was enabled; remove its snapshots and pull again, or set dmverity_mode to 'auto'`,
    );
  }

  /** One image that shows a snapshot and all below it, the others being its devices; if somebody has made it. */
  async #merged(parents: readonly number[], index: number): Promise<Mount | undefined> {
    const source = this.#file(parents[index]!, mergedName);
    if (!(await exists(source))) return undefined;
    const devices = parents.slice(index).reverse();
    const options = ['ro', 'loop', ...devices.map((id) => `device=${this.#file(id, imageName)}`)];
    return { type: 'erofs', source, target: '', options };
  }

  #file(id: number, name: string): string {
    return path.join(this.#settings.directoryOf(id), name);
  }
}
