import { createRegistry, type DescMessage, fromBinary } from '@bufbuild/protobuf';
import { formatTime, fromTimestamp, typeNameOf } from '@gantry/api';
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

/** What happened, with the fields' own names and without those that are empty; undefined for a message that is not containerd's. */
export function eventFields({ event }: Envelope): Record<string, unknown> | undefined {
  const schema = registry.getMessage(typeNameOf(event));
  return schema && fieldsOf(schema, fromBinary(schema, event.value) as unknown as Record<string, unknown>);
}

const zeroTime = { seconds: 0n, nanos: 0 };

/** Data that any client may have put in are named by their type, not read. */
function fieldsOf(schema: DescMessage, message: Record<string, unknown>): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const field of schema.fields) {
    const value = message[field.localName];
    if (value === undefined || value === '' || value === 0 || value === 0n || value === false) continue;
    if (field.fieldKind === 'message') {
      const name = field.message.typeName;
      const inner = value as Record<string, unknown>;
      if (name === 'google.protobuf.Any') found[field.name] = inner['typeUrl'];
      else if (name === 'google.protobuf.Timestamp')
        found[field.name] = formatTime(fromTimestamp(inner as never) ?? zeroTime);
      else found[field.name] = fieldsOf(field.message, inner);
    } else if (field.fieldKind === 'map') {
      if (field.mapKind === 'scalar' && Object.keys(value as object).length > 0) found[field.name] = value;
    } else if (field.fieldKind === 'list') {
      const items = value as unknown[];
      if (items.length === 0) continue;
      found[field.name] =
        field.listKind === 'message'
          ? items.map((item) => fieldsOf(field.message, item as Record<string, unknown>))
          : items;
    } else if (value instanceof Uint8Array) {
      if (value.length > 0) found[field.name] = `${value.length} bytes`;
    } else found[field.name] = typeof value === 'bigint' ? String(value) : value;
  }
  return found;
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
