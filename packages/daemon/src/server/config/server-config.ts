// The daemon's own part of the configuration: everything outside of the plugins' tables, with containerd's defaults under
// Gantry's paths.
import { type ConfigSchema, field, schema } from '../../core/plugin/config-schema.ts';
import { formatDuration } from '../../core/plugin/duration.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';

/** The newest version of the file format: containerd 2.3's, where the servers are plugins. */
export const newestVersion = 4;

/** `[timeouts]`: milliseconds by name. */
export const defaultTimeouts: Readonly<Record<string, number>> = {
  'io.containerd.timeout.bolt.open': 0,
  'io.containerd.timeout.cri.defercleanup': 60_000,
  'io.containerd.timeout.metrics.shimstats': 2_000,
  'io.containerd.timeout.shim.cleanup': 5_000,
  'io.containerd.timeout.shim.load': 5_000,
  'io.containerd.timeout.shim.shutdown': 3_000,
  'io.containerd.timeout.task.state': 2_000,
};

const decoder = (returns: string, accepts: string) => ({
  accepts: [accepts],
  returns,
  path: 'ctd-decoder',
  args: ['--decryption-keys-path', '/etc/gantry/ocicrypt/keys'],
  env: ['OCICRYPT_KEYPROVIDER_CONFIG=/etc/gantry/ocicrypt/ocicrypt_keyprovider.conf'],
});

const oneOf =
  (...values: string[]) =>
  (value: string): string | undefined =>
    values.includes(value) ? undefined : `one of ${values.map((text) => JSON.stringify(text)).join(', ')}`;

/** What a proxy plugin can be, and the type of plugin it then is; the configuration may say either. */
export const proxyTypes = {
  snapshot: PluginTypes.Snapshotter,
  content: PluginTypes.Content,
  diff: PluginTypes.Differ,
  sandbox: PluginTypes.SandboxController,
} as const;

/** A plugin that runs elsewhere and is spoken to over gRPC. */
const proxyPlugin = {
  type: field.string('', oneOf('', ...Object.keys(proxyTypes), ...Object.values(proxyTypes))),
  address: field.string(),
  platform: field.string(),
  exports: field.map(),
  capabilities: field.strings(),
};

/** The tables and keys of the file, in the order in which they are printed. `plugins` is checked plugin by plugin. */
export const serverSchema = schema({
  version: field.integer(newestVersion),
  root: field.path('/var/lib/gantry'),
  state: field.path('/run/gantry'),
  temp: field.path(),
  disabled_plugins: field.strings(),
  required_plugins: field.strings(),
  oom_score: field.integer(),
  imports: field.strings(['/etc/gantry/conf.d/*.toml']),
  debug: field.table({
    level: field.string('', oneOf('', 'trace', 'debug', 'info', 'warn', 'warning', 'error', 'fatal', 'panic')),
    format: field.string('', oneOf('', 'text', 'json')),
    log_trace_id: field.boolean(),
  }),
  plugins: field.any({}),
  proxy_plugins: field.tables(proxyPlugin),
  cgroup: field.table({ path: field.string() }),
  timeouts: field.map(
    Object.fromEntries(Object.entries(defaultTimeouts).map(([name, millis]) => [name, formatDuration(millis)])),
  ),
  stream_processors: field.tables(
    {
      accepts: field.strings(),
      returns: field.string(),
      path: field.string(),
      args: field.strings(),
      env: field.strings(),
    },
    {
      'io.containerd.ocicrypt.decoder.v1.tar': decoder(
        'application/vnd.oci.image.layer.v1.tar',
        'application/vnd.oci.image.layer.v1.tar+encrypted',
      ),
      'io.containerd.ocicrypt.decoder.v1.tar.gzip': decoder(
        'application/vnd.oci.image.layer.v1.tar+gzip',
        'application/vnd.oci.image.layer.v1.tar+gzip+encrypted',
      ),
    },
  ),
});

type ValueOf<S> = S extends ConfigSchema<infer T> ? T : never;

/** The checked configuration outside of the plugins' tables; timeouts are milliseconds. */
export type ServerConfig = Omit<ValueOf<typeof serverSchema>, 'plugins' | 'timeouts'> & {
  timeouts: Record<string, number>;
};

/** One entry of `[proxy_plugins]`. */
export type ProxyPluginConfig = ServerConfig['proxy_plugins'][string];
