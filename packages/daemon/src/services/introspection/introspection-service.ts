// What the daemon is made of: the object behind `containerd.services.introspection.v1.Introspection`.
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { notFound, toTimestamp } from '@gantry/api';
import type {
  PluginInfoResponseSchema,
  PluginSchema,
  ServerResponseSchema,
} from '@gantry/api/gen/services/introspection/v1/introspection_pb.js';
import { parseFilters } from '../../core/filters/parse-filters.ts';
import { definePlugin, type PluginContext, type PluginStatus } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';

/** Implemented by an instance that has more to say of itself, such as the features of a runtime binary. */
export interface PluginInfoProvider {
  pluginInfo(options: Any | undefined): Promise<Any>;
}

export interface IntrospectionService {
  plugins(filters: string[]): MessageInitShape<typeof PluginSchema>[];
  server(): Promise<MessageInitShape<typeof ServerResponseSchema>>;
  pluginInfo(
    type: string,
    id: string,
    options: Any | undefined,
  ): Promise<MessageInitShape<typeof PluginInfoResponseSchema>>;
}

/** The daemon's own id, made at the first start and kept in its root. */
async function readUuid(file: string): Promise<string> {
  try {
    const text = (await readFile(file, 'utf8')).trim();
    if (text !== '') return text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const uuid = randomUUID();
  await mkdir(path.dirname(file), { recursive: true, mode: 0o711 });
  await writeFile(`${file}.new`, uuid, { mode: 0o600, flush: true });
  await rename(`${file}.new`, file);
  return uuid;
}

function toWire(status: PluginStatus): MessageInitShape<typeof PluginSchema> {
  return {
    type: status.type,
    id: status.id,
    requires: status.requires,
    platforms: status.meta.platforms.map((platform) => {
      const [os = '', architecture = '', variant = ''] = platform.split('/');
      return { os, architecture, variant };
    }),
    exports: status.meta.exports,
    capabilities: status.meta.capabilities,
    ...(status.error && {
      initErr: {
        code: status.error.code,
        // Clients tell a skipped plugin from a broken one by these last words.
        message: status.error.skip ? `${status.error.message}: skip plugin` : status.error.message,
      },
    }),
  };
}

/** What containerd's filters can ask of a plugin: `id`, `type`, `platforms`, `capabilities`, and `status`-like fields not at all. */
function lookup(status: PluginStatus): (path: readonly string[]) => string | undefined {
  return (path) => {
    switch (path[0]) {
      case 'type':
        return status.type;
      case 'id':
        return status.id;
      case 'platforms':
        return status.meta.platforms.join(',');
      case 'capabilities':
        return status.meta.capabilities.join(',');
      default:
        return undefined;
    }
  };
}

async function makeService(context: PluginContext<unknown>): Promise<IntrospectionService> {
  const uuid = await readUuid(`${context.daemon.root}/io.containerd.grpc.v1.introspection/uuid`);
  const warnings = context.get(PluginTypes.Warning, 'deprecations');
  return {
    plugins: (filters) => {
      const filter = parseFilters(filters);
      return context
        .statuses()
        .filter((status) => filter.matches(lookup(status)))
        .map(toWire);
    },
    server: async () => ({
      uuid,
      pid: BigInt(process.pid),
      pidns: (await stat('/proc/self/ns/pid', { bigint: true })).ino,
      deprecations: warnings.warnings().map((warning) => ({
        id: warning.id,
        message: warning.message,
        lastOccurrence: toTimestamp(warning.lastOccurrence),
      })),
    }),
    pluginInfo: async (type, id, options) => {
      const status = context.statuses().find((one) => one.type === type && one.id === id);
      if (!status) throw notFound(`plugin ${type}.${id} not found`);
      const instance = status.error ? undefined : (context.get(type, id) as Partial<PluginInfoProvider> | undefined);
      const extra = await instance?.pluginInfo?.(options);
      return { plugin: toWire(status), ...(extra && { extra }) };
    },
  };
}

export const introspectionServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'introspection-service',
  requires: [PluginTypes.Warning],
  init: (context): Promise<unknown> => makeService(context),
});
