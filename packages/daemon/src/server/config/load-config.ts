// Reads the configuration file and what it imports, migrates each to the newest version, checks them one by one (so that
// an error names the file it is in) and lays them over each other.
import { glob, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument, StatusError } from '@gantry/api';
import { parse, TomlError } from 'smol-toml';
import { checkTable, describePlace, isTable, withDefaults, wrongValue } from '../../core/plugin/config-check.ts';
import type { Field } from '../../core/plugin/config-schema.ts';
import { parseDuration } from '../../core/plugin/duration.ts';
import type { Plugin } from '../../core/plugin/plugin.ts';
import { pluginUri } from '../plugin-graph.ts';
import { mergeConfig } from './merge.ts';
import { migrateConfig } from './migrate.ts';
import { type ServerConfig, serverSchema } from './server-config.ts';

type Table = Record<string, unknown>;
type Fields = Record<string, Field>;

const serverFields = serverSchema.fields as unknown as Fields;

export interface LoadedConfig {
  readonly server: ServerConfig;
  /** What a plugin's table came to, checked, with defaults; durations as milliseconds. */
  pluginConfig(plugin: Plugin): unknown;
  /** The merged file in the newest version, without defaults. */
  readonly raw: Record<string, unknown>;
  /** One line for each thing that is not as it should be but does not stop the daemon. */
  readonly warnings: readonly string[];
  /** The files that were read, the main one first. */
  readonly files: readonly string[];
}

export interface LoadOptions {
  /** The file; absent: only `config` and defaults. */
  path?: string | undefined;
  /** Do not fail if the file does not exist. */
  optional?: boolean;
  /** A configuration given by a program, of the newest version unless it says another; laid over the file. */
  config?: Record<string, unknown> | undefined;
  /** The plugins whose tables are checked; tables of others are warned of. */
  plugins: readonly Plugin[];
}

async function readToml(file: string): Promise<Table> {
  return parseToml(await readFile(file, 'utf8'), file);
}

/** @throws StatusError InvalidArgument with file and line */
export function parseToml(text: string, file: string): Table {
  try {
    return parse(text, { integersAsBigInt: 'asNeeded' }) as Table;
  } catch (error) {
    if (error instanceof TomlError) throw invalidArgument(`${file}: line ${error.line}: ${error.message}`, error);
    throw error;
  }
}

/** The files that an import names: a glob, relative to the importing file; a plain name that is missing is an error. */
async function resolveImport(pattern: string, from: string): Promise<string[]> {
  const full = path.resolve(path.dirname(from), pattern);
  if (!/[*?[\]{}]/.test(full)) return [full];
  const found: string[] = [];
  for await (const file of glob(full)) found.push(file);
  return found.sort();
}

/** The main file and everything it imports, in the order in which they are laid over each other. */
export async function readAll(main: string, first: Table, version: (raw: Table, file: string) => Table) {
  const seen = new Set([await realpath(main)]);
  const all = [{ file: main, raw: version(first, main) }];
  const pending = [{ file: main, raw: all[0]!.raw }];
  for (let next = pending.shift(); next; next = pending.shift()) {
    const imports = next.raw['imports'] ?? (next.file === main ? serverFields['imports']!.default : []);
    if (!Array.isArray(imports) || imports.some((item) => typeof item !== 'string')) {
      throw wrongValue({ file: next.file, table: [] }, 'imports', 'an array of strings', imports);
    }
    for (const pattern of imports as string[]) {
      for (const file of await resolveImport(pattern, next.file)) {
        const real = await realpath(file).catch((error: NodeJS.ErrnoException) => {
          throw invalidArgument(`${next.file}: top level: key imports: cannot read ${file}: ${error.message}`, error);
        });
        // A file that was read already, such as one that imports its importer, is not read again.
        if (seen.has(real)) continue;
        seen.add(real);
        const entry = { file, raw: version(await readToml(file), file) };
        all.push(entry);
        pending.push(entry);
      }
    }
  }
  return all;
}

/** Checks one file's tables with its own name in every message. */
export function checkFile(raw: Table, file: string, plugins: Map<string, Plugin>, warnings: string[]): void {
  const warn = (text: string) => void warnings.push(text);
  checkTable(serverFields, raw, { file, table: [] }, warn);
  checkTimeouts(raw['timeouts'], file);
  const tables = raw['plugins'] ?? {};
  if (!isTable(tables)) throw wrongValue({ file, table: [] }, 'plugins', 'a table', tables);
  for (const [uri, table] of Object.entries(tables)) {
    const place = { file, table: ['plugins', uri] };
    if (!isTable(table)) throw wrongValue({ file, table: ['plugins'] }, uri, 'a table', table);
    const plugin = plugins.get(uri);
    if (plugin) checkTable((plugin.config?.fields ?? {}) as Fields, table, place, warn);
    else warn(`${describePlace({ file, table: ['plugins'] }, uri)} names a plugin that this daemon does not have`);
  }
}

function checkTimeouts(timeouts: unknown, file: string): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [name, text] of Object.entries(isTable(timeouts) ? timeouts : {})) {
    const millis = parseDuration(String(text));
    if (millis === undefined) {
      throw wrongValue({ file, table: ['timeouts'] }, name, 'a duration such as "1h30m" or "0.5s"', text);
    }
    result[name] = millis;
  }
  return result;
}

/** @throws StatusError InvalidArgument for a value of a wrong type, NotFound for a missing file. */
export async function loadConfig(options: LoadOptions): Promise<LoadedConfig> {
  const warnings: string[] = [];
  const plugins = new Map(options.plugins.map((plugin) => [pluginUri(plugin), plugin]));
  let raw: Table = {};
  const files: string[] = [];
  const place = options.path ?? '';
  if (options.path !== undefined) {
    const main = path.resolve(options.path);
    let first: Table | undefined;
    try {
      first = await readToml(main);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      if (!options.optional) throw new StatusError(5, `failed to load configuration ${main}: no such file`);
    }
    if (first) {
      for (const { file, raw: one } of await readAll(main, first, migrateConfig)) {
        checkFile(one, file, plugins, warnings);
        raw = files.length === 0 ? one : mergeConfig(raw, one);
        files.push(file);
      }
    }
  }
  if (options.config) {
    const given = migrateConfig({ version: 4, ...options.config }, '');
    checkFile(given, '', plugins, warnings);
    raw = mergeConfig(raw, given);
  }
  const silent = () => {};
  const base = checkTable(serverFields, raw, { file: place, table: [] }, silent) as unknown as ServerConfig;
  const defaults = serverFields['timeouts']!.default as Table;
  const timeouts = checkTimeouts({ ...defaults, ...(isTable(raw['timeouts']) ? raw['timeouts'] : {}) }, place);
  const tables = (raw['plugins'] ?? {}) as Record<string, Table>;
  return {
    server: { ...base, timeouts },
    raw,
    warnings,
    files,
    pluginConfig: (plugin) => {
      if (!plugin.config) return {};
      const uri = pluginUri(plugin);
      return checkTable(
        plugin.config.fields as Fields,
        tables[uri] ?? {},
        { file: place, table: ['plugins', uri] },
        silent,
      );
    },
  };
}

/** The whole configuration with every default filled in, as `config default` and `config dump` print it. */
export function fullConfig(raw: Record<string, unknown>, plugins: readonly Plugin[]): Record<string, unknown> {
  const given = isTable(raw['plugins']) ? (raw['plugins'] as Record<string, Table>) : {};
  const tables: Record<string, unknown> = { ...given };
  for (const plugin of plugins) {
    if (plugin.config)
      tables[pluginUri(plugin)] = withDefaults(plugin.config.fields as Fields, given[pluginUri(plugin)]);
  }
  const sorted = Object.fromEntries(Object.entries(tables).sort(([a], [b]) => (a < b ? -1 : 1)));
  const timeouts = {
    ...(serverFields['timeouts']!.default as Table),
    ...(isTable(raw['timeouts']) ? raw['timeouts'] : {}),
  };
  const { proxy_plugins: proxies, ...full } = withDefaults(serverFields, { ...raw, timeouts, plugins: sorted });
  return isTable(proxies) && Object.keys(proxies).length > 0 ? { ...full, proxy_plugins: proxies } : full;
}
