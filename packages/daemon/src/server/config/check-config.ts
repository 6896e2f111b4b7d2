import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { tomlPath } from '../../core/plugin/config-check.ts';
import type { Field } from '../../core/plugin/config-schema.ts';
import type { Plugin } from '../../core/plugin/plugin.ts';
import { deprecations } from '../../core/warnings/deprecations.ts';
import { pluginUri } from '../plugin-graph.ts';
import { deprecatedSettings } from './deprecated-settings.ts';
import { checkFile, parseToml, readAll } from './load-config.ts';
import { migrateConfig } from './migrate.ts';
import { type MovedSetting, migrateText } from './migrate-text.ts';
import { newestVersion, serverSchema } from './server-config.ts';

/** Something in a configuration file that is not as it should be. */
export interface ConfigFinding {
  file: string;
  /** From 1; 0: the file as a whole. */
  line: number;
  /** `invalid` stops the daemon; the others do not. */
  kind: 'unknown' | 'deprecated' | 'removed' | 'invalid' | 'old';
  message: string;
}

type Fields = Record<string, Field>;

/** Looks through a configuration file and all that it imports. @throws StatusError if one cannot be read at all */
export async function checkConfig(main: string, plugins: readonly Plugin[]): Promise<ConfigFinding[]> {
  const byUri = new Map(plugins.map((plugin) => [pluginUri(plugin), plugin]));
  const full = path.resolve(main);
  const first = parseToml(await readFile(full, 'utf8'), full);
  const files = await readAll(full, first, (raw) => raw);
  const findings: ConfigFinding[] = [];
  for (const { file, raw } of files) findings.push(...(await checkOne(file, raw, byUri)));
  return findings;
}

async function checkOne(
  file: string,
  raw: Record<string, unknown>,
  plugins: ReadonlyMap<string, Plugin>,
): Promise<ConfigFinding[]> {
  const { settings } = migrateText(await readFile(file, 'utf8'), raw, file);
  const migrated = migrateConfig(raw, file);
  const findings: ConfigFinding[] = [];
  const version = Number(raw['version'] ?? 1);
  if (version < newestVersion) {
    const message = `version ${version} of the file format; "gantryd config migrate" writes version ${newestVersion}`;
    findings.push({ file, line: 0, kind: 'old', message });
  }
  for (const { path: from, line, to } of settings) {
    if (to.length === 0) {
      findings.push({ file, line, kind: 'removed', message: `${tomlPath(from)} is gone and ignored` });
    } else if (!to.some((target) => isKnown(target, plugins))) {
      findings.push({ file, line, kind: 'unknown', message: `${tomlPath(from)} is unknown and ignored` });
    }
  }
  for (const { name, path: where } of deprecatedSettings(migrated)) {
    findings.push({ file, line: lineOf(where, settings), kind: 'deprecated', message: deprecations[name] });
  }
  try {
    checkFile(migrated, file, new Map(plugins), []);
  } catch (error) {
    findings.push({ file, line: 0, kind: 'invalid', message: (error as Error).message.replace(`${file}: `, '') });
  }
  return findings.sort((a, b) => a.line - b.line);
}

function lineOf(where: readonly string[], settings: readonly MovedSetting[]): number {
  const inside = settings.filter(({ to }) => to.some((target) => where.every((part, at) => target[at] === part)));
  return Math.min(...inside.map(({ line }) => line));
}

/** Whether a setting, or table, of the newest version means something to this daemon. */
function isKnown(setting: readonly string[], plugins: ReadonlyMap<string, Plugin>): boolean {
  const [top = '', uri = '', ...rest] = setting;
  if (top !== 'plugins') return isField(setting, serverSchema.fields as unknown as Fields);
  const plugin = plugins.get(uri);
  return plugin !== undefined && isField(rest, (plugin.config?.fields ?? {}) as Fields);
}

function isField(setting: readonly string[], fields: Fields): boolean {
  const [key, ...rest] = setting;
  if (key === undefined) return true;
  const field = Object.hasOwn(fields, key) ? fields[key]! : undefined;
  if (!field) return false;
  if (field.kind === 'table') return isField(rest, field.fields ?? {});
  // Of a table of tables the first part is a free name.
  if (field.kind === 'tables') return rest.length <= 1 || isField(rest.slice(1), field.fields ?? {});
  return rest.length === 0 || field.kind === 'map' || field.kind === 'any';
}
