import { existsSync } from 'node:fs';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import path from 'node:path';
import { toBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { Code, failedPrecondition, hasCode, invalidArgument, isAny, unimplemented, unpackAny } from '@gantry/api';
import { CheckpointOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { LayerMediaType } from '@gantry/archive';
import type { Mount } from '@gantry/mount';
import { type Descriptor, MediaType } from '@gantry/oci';
import type { ContentStore } from '../content/content-store.ts';
import type { Differ } from '../diff/differ.ts';
import type { RequestContext } from '../request-context.ts';
import type { CheckpointSource, Task } from './task-runtime.ts';

/** Checkpoints of tasks in the content store: a tar of CRIU's images, and the spec of the container. */
export class Checkpoints {
  readonly #content: ContentStore;
  readonly #given: Differ | undefined;

  /** @param differ what packs and unpacks the images; without one, calls fail with FailedPrecondition */
  constructor(content: ContentStore, differ: Differ | undefined) {
    this.#content = content;
    this.#given = differ;
  }

  get #differ(): Differ {
    if (!this.#given) throw failedPrecondition('no differ for checkpoints: failed precondition');
    return this.#given;
  }

  /**
   * Has the state of a task written: to the directory that `options` name, or else to the content store.
   * @returns the blobs, none if it went to a directory
   */
  async write(ctx: RequestContext, task: Task, spec: Any | undefined, options: Any | undefined): Promise<Descriptor[]> {
    const wanted = imagePathOf(options);
    if (wanted !== '') {
      await task.checkpoint(wanted, options);
      return [];
    }
    // On disk beside the task, and gone with it if this process ends before.
    const directory = await mkdtemp(path.join(await realpath(path.join(task.bundle, 'work')), 'checkpoint-'));
    try {
      await task.checkpoint(directory, options);
      const images = await this.#differ.diff(ctx, [], bind(directory), { mediaType: LayerMediaType.tar });
      const config = spec ? [await this.#writeConfig(ctx, spec, `${directory}/spec`)] : [];
      return [{ ...images, mediaType: MediaType.Checkpoint }, ...config];
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #writeConfig(ctx: RequestContext, spec: Any, ref: string): Promise<Descriptor> {
    const data = toBinary(AnySchema, spec);
    const writer = await this.#content.writer(ctx, { ref });
    try {
      await writer.write(data);
      const digest = await writer.digest();
      try {
        await writer.commit({ size: data.length });
      } catch (error) {
        if (!hasCode(error, Code.AlreadyExists)) throw error;
      }
      return { mediaType: MediaType.CheckpointConfig, digest, size: data.length };
    } finally {
      await writer.close();
    }
  }

  /** Lays what is in `file`, a layer, over a container's root. One that is not there changes nothing. */
  async applyChanges(ctx: RequestContext, file: string, mounts: Mount[]): Promise<void> {
    if (!existsSync(file)) return;
    const { applyFile } = this.#differ;
    if (!applyFile) throw unimplemented('the differ takes no layer out of a file');
    await applyFile.call(this.#differ, ctx, file, mounts);
  }

  /** Where a task comes from that a request wants to be restored. @throws StatusError InvalidArgument */
  source(ctx: RequestContext, checkpoint: Descriptor | undefined, criuImagePath: string): CheckpointSource | undefined {
    if (criuImagePath !== '') return { path: criuImagePath };
    if (!checkpoint) return undefined;
    if (checkpoint.mediaType !== MediaType.Checkpoint)
      throw invalidArgument(`unsupported checkpoint type "${checkpoint.mediaType}"`);
    return {
      unpackInto: async (directory) => {
        await this.#differ.apply(ctx, { ...checkpoint, mediaType: LayerMediaType.tar }, bind(directory));
      },
    };
  }
}

function bind(directory: string): Mount[] {
  return [{ type: 'bind', source: directory, target: '', options: ['rbind', 'rw'] }];
}

/** @throws StatusError InvalidArgument for options of another kind */
function imagePathOf(options: Any | undefined): string {
  if (!options || options.typeUrl === '') return '';
  if (!isAny(options, CheckpointOptionsSchema)) throw invalidArgument('invalid task checkpoint option');
  return unpackAny(CheckpointOptionsSchema, options).imagePath;
}
