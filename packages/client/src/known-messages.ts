// What is inside an Any that came from a daemon: events, metrics, runtime options, and OCI documents in JSON.
import { createRegistry, type DescMessage, fromBinary, type Message, toBinary, toJson } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { typeNameOf } from '@gantry/api';
import { file_cgroups_v1_metrics } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { file_cgroups_v2_metrics } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { file_events_container } from '@gantry/api/gen/events/container_pb.js';
import { file_events_content } from '@gantry/api/gen/events/content_pb.js';
import { file_events_image } from '@gantry/api/gen/events/image_pb.js';
import { file_events_namespace } from '@gantry/api/gen/events/namespace_pb.js';
import { file_events_sandbox } from '@gantry/api/gen/events/sandbox_pb.js';
import { file_events_snapshot } from '@gantry/api/gen/events/snapshot_pb.js';
import { file_events_task } from '@gantry/api/gen/events/task_pb.js';
import { file_types_introspection } from '@gantry/api/gen/types/introspection_pb.js';
import { file_types_runc_options_oci } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { file_types_runtimeoptions_v1_api } from '@gantry/api/gen/types/runtimeoptions/v1/api_pb.js';
import { file_types_transfer_progress } from '@gantry/api/gen/types/transfer/progress_pb.js';
import { type Json, parseJson } from '@gantry/oci';

const registry = createRegistry(
  file_cgroups_v1_metrics,
  file_cgroups_v2_metrics,
  file_events_container,
  file_events_content,
  file_events_image,
  file_events_namespace,
  file_events_sandbox,
  file_events_snapshot,
  file_events_task,
  file_types_introspection,
  file_types_runc_options_oci,
  file_types_runtimeoptions_v1_api,
  file_types_transfer_progress,
);

/** A message with the schema that reads it. */
export interface Decoded {
  readonly schema: DescMessage;
  readonly message: Message;
}

/** The protobuf message in an Any, if its type is one that containerd's daemons send. */
export function decodeAny(any: Any): Decoded | undefined {
  const schema = registry.getMessage(typeNameOf(any));
  return schema && { schema, message: fromBinary(schema, any.value) };
}

/**
 * An Any as JSON: protobuf messages with snake_case names as containerd prints them, OCI documents as they are
 * (64-bit numbers as bigint where a number cannot hold them). Undefined if it is neither.
 */
export function anyToJson(any: Any): Json | undefined {
  const decoded = decodeAny(any);
  if (decoded) return toJson(decoded.schema, decoded.message, { useProtoFieldName: true }) as Json;
  if (any.value[0] !== 0x7b) return undefined;
  try {
    return parseJson(any.value);
  } catch {
    return undefined; // Not JSON after all, though it begins like an object.
  }
}

/** A message with its type as bytes, as blobs of the content store hold it. */
export function anyToBytes(any: Any): Uint8Array {
  return toBinary(AnySchema, any);
}

/** @throws Error for bytes that are none */
export function anyFromBytes(bytes: Uint8Array): Any {
  return fromBinary(AnySchema, bytes);
}
