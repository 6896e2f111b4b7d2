// A typed client for containerd-compatible daemons: docs/client.md.

export type { Any } from '@bufbuild/protobuf/wkt';
export {
  Code,
  compareTime,
  formatTime,
  fromMillis,
  hasCode,
  isAny,
  jsonAny,
  now,
  packAny,
  parseTime,
  StatusError,
  type Time,
  TypeUrl,
  toMillis,
  unpackAny,
} from '@gantry/api';
export type { Descriptor, Platform } from '@gantry/oci';
export type { CallOptions, Client as ServiceClient, Transport } from '@gantry/rpc';
export * from './client.ts';
export type { CopyFromContainerOptions, CopyToContainerOptions } from './container-files.ts';
export * from './containers.ts';
export * from './content.ts';
export * from './content-writer.ts';
export * from './convert-image.ts';
export * from './convert-layer.ts';
export * from './daemon-version.ts';
export { decompressed } from './decompress.ts';
export * from './diff.ts';
export * from './events.ts';
export * from './fifos.ts';
export * from './images.ts';
export * from './introspection.ts';
export * from './known-messages.ts';
export * from './leases.ts';
export * from './limiter.ts';
export type { Mount } from './mount.ts';
export * from './mounts.ts';
export * from './namespaces.ts';
export * from './open-writer.ts';
export * from './plain-json.ts';
export { type ExitStatus, Process, type ProcessState, type ProcessStatus, signalNumber } from './process.ts';
export * from './runtime-info.ts';
export * from './runtime-options.ts';
export * from './sandboxes.ts';
export * from './shim.ts';
export * from './snapshots.ts';
export * from './streams.ts';
export * from './tasks.ts';
export * from './transfer.ts';
export type { DiffSnapshotOptions, SnapshotDiff, UnpackedLayer, UnpackLayerOptions } from './transfer-layers.ts';
