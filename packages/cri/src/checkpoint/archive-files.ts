import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { type ContainerStatus, ContainerStatusSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { rootfsChanges } from '@gantry/daemon/core/tasks/task-service.ts';
import { parseJson } from '@gantry/oci';
import { fromJson } from '../wire-json.ts';

/** What is in a checkpoint archive of a container, by the names that CRI-O, Podman, containerd and checkpointctl agree on. */
export const ArchiveFile = {
  /** What the archive is of: a `ConfigDump`. */
  config: 'config.dump',
  /** The OCI specification. */
  spec: 'spec.dump',
  /** The container's CRI status, as containerd writes it into JSON. */
  status: 'status.dump',
  /** The daemon's own status file. */
  statusFile: 'status',
  /** A directory with CRIU's images. */
  images: 'checkpoint',
  /** A layer with what was written to the root. */
  changes: rootfsChanges,
  log: 'container.log',
} as const;

export interface ConfigDump {
  id: string;
  name: string;
  rootfsImage?: string;
  /** By digest. */
  rootfsImageRef?: string;
  rootfsImageName?: string;
  runtime?: string;
  createdTime: string;
  checkpointedTime: string;
  restoredTime: string;
  restored: boolean;
}

/** Go's time that never was. */
export const noTime = '0001-01-01T00:00:00Z';

/** Annotation of an image that is a checkpoint: the container's name. */
export const checkpointAnnotation = 'org.criu.checkpoint.container.name';

/** What an unpacked archive says of itself. @throws InvalidArgument if it is none */
export async function readArchive(directory: string): Promise<{ config: ConfigDump; status: ContainerStatus }> {
  const read = async <T>(name: string): Promise<T> => {
    try {
      return parseJson<T>(await readFile(path.join(directory, name)));
    } catch (error) {
      throw invalidArgument(`failed to read "${name}": ${(error as Error).message}`, error);
    }
  };
  await read(ArchiveFile.spec);
  const config = await read<ConfigDump>(ArchiveFile.config);
  const status = fromJson(ContainerStatusSchema, await read(ArchiveFile.status));
  return { config, status };
}
