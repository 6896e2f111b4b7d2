import type { Any } from '@bufbuild/protobuf/wkt';
import { type Code, StatusError, type Time } from '@gantry/api';
import {
  Introspection as IntrospectionService,
  type Plugin as WirePlugin,
} from '@gantry/api/gen/services/introspection/v1/introspection_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import type { Platform } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { fromWirePlatform } from './platform.ts';
import { momentFromWire } from './time.ts';

/** A part of the daemon. */
export interface Plugin {
  /** As `io.containerd.snapshotter.v1`. */
  readonly type: string;
  readonly id: string;
  /** Types of plugins it needs. */
  readonly requires: readonly string[];
  readonly platforms: readonly Platform[];
  readonly exports: Readonly<Record<string, string>>;
  readonly capabilities: readonly string[];
  /** Why it is not there, if it is not. */
  readonly error: StatusError | undefined;
}

export interface ServerInfo {
  readonly uuid: string;
  /** 0 if the daemon does not tell. */
  readonly pid: number;
  /** Inode of its pid namespace; 0 if it does not tell. */
  readonly pidNamespace: bigint;
  /** Old things that are in use. */
  readonly deprecations: readonly { id: string; message: string; lastOccurrence: Time | undefined }[];
}

/** What the daemon is made of. */
export class Introspection {
  readonly #service: Client<typeof IntrospectionService>;
  readonly #version: Client<typeof Version>;

  constructor(transport: Transport) {
    this.#service = createClient(IntrospectionService, transport);
    this.#version = createClient(Version, transport);
  }

  async version(options?: CallOptions): Promise<{ version: string; revision: string }> {
    const { version, revision } = await this.#version.version({}, options);
    return { version, revision };
  }

  async server(options?: CallOptions): Promise<ServerInfo> {
    const { uuid, pid, pidns, deprecations } = await this.#service.server({}, options);
    return {
      uuid,
      pid: Number(pid),
      pidNamespace: pidns,
      deprecations: deprecations.map(({ id, message, lastOccurrence }) => ({
        id,
        message,
        lastOccurrence: momentFromWire(lastOccurrence),
      })),
    };
  }

  /** Filters: `type==io.containerd.grpc.v1`, `id==cri`. */
  async plugins(filters: string[] = [], options?: CallOptions): Promise<Plugin[]> {
    return (await this.#service.plugins({ filters }, options)).plugins.map(fromWire);
  }

  /** What only the plugin itself knows. @throws StatusError NotFound, Unimplemented before containerd 2 */
  async pluginInfo(
    type: string,
    id: string,
    settings: { options?: Any } = {},
    options?: CallOptions,
  ): Promise<{ plugin: Plugin | undefined; extra: Any | undefined }> {
    const { plugin, extra } = await this.#service.pluginInfo({ type, id, ...settings }, options);
    return { plugin: plugin && fromWire(plugin), extra };
  }
}

function fromWire(wire: WirePlugin): Plugin {
  const { initErr } = wire;
  return {
    type: wire.type,
    id: wire.id,
    requires: wire.requires,
    platforms: wire.platforms.map(fromWirePlatform),
    exports: wire.exports,
    capabilities: wire.capabilities,
    error: initErr && new StatusError(initErr.code as Code, initErr.message, { details: initErr.details }),
  };
}
