import { createRegistry, type DescMessage, fromBinary } from '@bufbuild/protobuf';
import { typeNameOf } from '@gantry/api';
import { file_events_container } from '@gantry/api/gen/events/container_pb.js';
import { file_events_content } from '@gantry/api/gen/events/content_pb.js';
import { file_events_image } from '@gantry/api/gen/events/image_pb.js';
import { file_events_namespace } from '@gantry/api/gen/events/namespace_pb.js';
import { file_events_sandbox } from '@gantry/api/gen/events/sandbox_pb.js';
import { file_events_snapshot } from '@gantry/api/gen/events/snapshot_pb.js';
import { file_events_task } from '@gantry/api/gen/events/task_pb.js';
import type { FieldLookup } from '../filters/filter.ts';
import type { Envelope } from './exchange.ts';

const registry = createRegistry(
  file_events_container,
  file_events_content,
  file_events_image,
  file_events_namespace,
  file_events_sandbox,
  file_events_snapshot,
  file_events_task,
);

/** What filters see of an event: `topic`, `namespace`, and `event.<path>` into the message, decoded once when first asked. */
export function eventLookup(envelope: Envelope): FieldLookup {
  let decoded: { schema: DescMessage; message: Record<string, unknown> } | undefined;
  return (path) => {
    switch (path[0]) {
      case 'topic':
        return envelope.topic;
      case 'namespace':
        return envelope.namespace;
      case 'event': {
        const schema = registry.getMessage(typeNameOf(envelope.event));
        if (!schema) return undefined;
        decoded ??= { schema, message: fromBinary(schema, envelope.event.value) as unknown as Record<string, unknown> };
        return fieldOf(decoded.schema, decoded.message, path.slice(1));
      }
      default:
        return undefined;
    }
  };
}

function fieldOf(schema: DescMessage, message: Record<string, unknown>, path: readonly string[]): string | undefined {
  const field = schema.fields.find((candidate) => candidate.name === path[0]);
  if (!field) return undefined;
  const value = message[field.localName];
  if (field.fieldKind === 'map') return (value as Record<string, string>)[path.slice(1).join('.')];
  if (field.fieldKind === 'message')
    return value ? fieldOf(field.message, value as Record<string, unknown>, path.slice(1)) : undefined;
  if (field.fieldKind === 'list' || path.length > 1) return undefined;
  const text = String(value);
  return text === '' ? undefined : text;
}
