import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, typeNameOf, unknown } from '@gantry/api';
import { type CheckpointOptions, CheckpointOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { log } from './log.ts';
import { lookPath, RuntimeError } from './oci-runtime.ts';

/** What a container is made from that was stopped before: CRIU's images. Plain data, kept in the container's record. */
export interface RestoreSource {
  /** Directory with the images. */
  imagePath: string;
  /** Directory for CRIU's own files, as `restore.log`. */
  workPath: string;
  noPivotRoot: boolean;
}

/** Whether there is a CRIU here, so that containers should be made in a way that lets it freeze them. */
export function canCheckpoint(): boolean {
  return lookPath('criu') !== undefined;
}

/** @throws StatusError InvalidArgument for a message of another runtime */
export function readCheckpointOptions(any: Any | undefined): CheckpointOptions {
  if (!any || typeNameOf(any) === '') return fromBinary(CheckpointOptionsSchema, new Uint8Array());
  if (typeNameOf(any) !== CheckpointOptionsSchema.typeName)
    throw invalidArgument(`unsupported checkpoint options type ${any.typeUrl}`);
  return fromBinary(CheckpointOptionsSchema, any.value);
}

/** The OCI runtime's arguments, but for the container's id. */
export function checkpointArguments(options: CheckpointOptions, imagePath: string, workPath: string): string[] {
  const flag = (wanted: boolean, name: string): string[] => (wanted ? [name] : []);
  return [
    'checkpoint',
    '--image-path',
    imagePath,
    '--work-path',
    workPath,
    ...flag(options.openTcp, '--tcp-established'),
    ...flag(options.externalUnixSockets, '--ext-unix-sk'),
    ...flag(options.terminal, '--shell-job'),
    ...flag(options.fileLocks, '--file-locks'),
    ...options.emptyNamespaces.flatMap((name) => ['--empty-ns', name]),
    ...(options.cgroupsMode === '' ? [] : ['--manage-cgroups-mode', options.cgroupsMode]),
    ...flag(!options.exit, '--leave-running'),
  ];
}

/** The arguments that bring a container back, but for the place of its terminal and its id. */
export function restoreArguments(source: RestoreSource, bundle: string, pidFile: string): string[] {
  const { imagePath, workPath, noPivotRoot } = source;
  const places = ['--bundle', bundle, '--image-path', imagePath, '--work-path', workPath];
  return [
    'restore',
    ...places,
    '--detach',
    // Whom the kernel gives orphans to is this process already.
    '--no-subreaper',
    '--pid-file',
    pidFile,
    ...(noPivotRoot ? ['--no-pivot'] : []),
  ];
}

/** Has CRIU write a container's state; without a work path of the caller's, its log stays in the bundle if it fails. */
export async function writeCheckpoint(
  bundle: string,
  imagePath: string,
  options: CheckpointOptions,
  run: (args: string[]) => Promise<unknown>,
): Promise<void> {
  const workPath = options.workPath || path.join(bundle, 'work', 'criu-work');
  if (options.workPath === '') mkdirSync(workPath, { recursive: true, mode: 0o700 });
  try {
    await run(checkpointArguments(options, imagePath, workPath));
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error;
    const kept = path.join(bundle, 'criu-dump.log');
    try {
      copyFileSync(path.join(workPath, 'dump.log'), kept);
    } catch (failure) {
      log.warn('failed to copy dump.log to criu-dump.log', { bundle, error: failure });
    }
    // What CRIU could not do is in its log; the runtime's own words after the first line name one that will be gone.
    throw unknown(`OCI runtime checkpoint failed: ${error.message.split('\n', 1)[0]} path= ${kept}`, error);
  } finally {
    if (options.workPath === '') rmSync(workPath, { recursive: true, force: true });
  }
}
