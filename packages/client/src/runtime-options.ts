import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny } from '@gantry/api';
import { CheckpointOptionsSchema, OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';

/** Options of runtimes that work like runc: `{ binaryName: 'crun', systemdCgroup: true }`. For containers and tasks. */
export function runcOptions(options: Omit<MessageInitShape<typeof OptionsSchema>, '$typeName'>): Any {
  return packAny(OptionsSchema, options as MessageInitShape<typeof OptionsSchema>);
}

/** Options of a checkpoint by such a runtime. */
export function runcCheckpointOptions(
  options: Omit<MessageInitShape<typeof CheckpointOptionsSchema>, '$typeName'>,
): Any {
  return packAny(CheckpointOptionsSchema, options as MessageInitShape<typeof CheckpointOptionsSchema>);
}
