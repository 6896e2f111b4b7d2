import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny } from '@gantry/api';
import { CheckpointOptionsSchema, OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { OptionsSchema as GenericOptionsSchema } from '@gantry/api/gen/types/runtimeoptions/v1/api_pb.js';

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

/** Options of other runtimes: `{ configPath: '/etc/kata/configuration.toml' }`. */
export function genericRuntimeOptions(options: Omit<MessageInitShape<typeof GenericOptionsSchema>, '$typeName'>): Any {
  return packAny(GenericOptionsSchema, options as MessageInitShape<typeof GenericOptionsSchema>);
}
