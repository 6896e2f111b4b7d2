import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, packAny, unpackAny } from '@gantry/api';
import { RuntimeInfoSchema, RuntimeRequestSchema } from '@gantry/api/gen/types/introspection_pb.js';
import type { Json } from '@gantry/oci';
import type { CallOptions } from '@gantry/rpc';
import type { Introspection } from './introspection.ts';
import { plainAny } from './plain-json.ts';

/** What a runtime's shim tells about itself. */
export interface RuntimeInfo {
  readonly name: string;
  readonly version: { readonly version: string; readonly revision: string };
  /** The options it would run with. */
  readonly options: Json | undefined;
  /** The features document of the OCI runtime specification. */
  readonly features: Json | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Asks a runtime, by name or path, through the daemon. @throws StatusError NotFound if there is none */
export async function runtimeInfo(
  introspection: Introspection,
  runtime: string,
  settings: { options?: Any } = {},
  options?: CallOptions,
): Promise<RuntimeInfo> {
  const request = packAny(RuntimeRequestSchema, { runtimePath: runtime, ...settings });
  const { extra } = await introspection.pluginInfo('io.containerd.runtime.v2', 'task', { options: request }, options);
  if (!extra) throw internal('the server sent nothing about the runtime');
  const info = unpackAny(RuntimeInfoSchema, extra);
  return {
    name: info.name,
    version: { version: info.version?.version ?? '', revision: info.version?.revision ?? '' },
    options: info.options && plainAny(info.options),
    features: info.features && plainAny(info.features),
    annotations: info.annotations,
  };
}
