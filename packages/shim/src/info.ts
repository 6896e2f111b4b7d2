import { spawnSync } from 'node:child_process';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { jsonAny } from '@gantry/api';
import { RuntimeInfoSchema } from '@gantry/api/gen/types/introspection_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { defaultBinary } from './oci-runtime.ts';
import { readRuntimeOptions } from './runtime-options.ts';
import { readStdin } from './start.ts';
import { readoptAnnotation, reuseAnnotation, runtimeName, shimVersion } from './version.ts';

/** The type URL of an OCI runtime's `features` document inside an Any. */
const featuresTypeUrl = 'types.containerd.io/opencontainers/runtime-spec/1/features/Features';

/** The `-info` action: containerd.types.RuntimeInfo, for options given on stdin (an Any, or nothing). */
export async function runtimeInfo(): Promise<Uint8Array> {
  const stdin = readStdin();
  const options = stdin.length > 0 ? fromBinary(AnySchema, stdin) : undefined;
  const binary = readRuntimeOptions(options).binaryName || defaultBinary();
  const features = readFeatures(binary);
  return toBinary(
    RuntimeInfoSchema,
    create(RuntimeInfoSchema, {
      name: runtimeName,
      version: { version: shimVersion },
      options: create(AnySchema, { typeUrl: OptionsSchema.typeName, value: options?.value ?? new Uint8Array() }),
      ...(features ? { features } : {}),
      annotations: { [reuseAnnotation]: 'true', [readoptAnnotation]: 'true' },
    }),
  );
}

/** What the OCI runtime says of itself; runtimes before OCI 1.1 say nothing. */
function readFeatures(binary: string): Any | undefined {
  const result = spawnSync(binary, ['features'], { encoding: 'utf8', timeout: 5000 });
  if (result.status !== 0) return undefined;
  try {
    JSON.parse(result.stdout);
    return jsonAny(featuresTypeUrl, result.stdout);
  } catch {
    return undefined;
  }
}
