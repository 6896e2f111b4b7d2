// containerd's configuration as the first one of this daemon.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { migrateText, parseToml } from '@gantry/daemon';
import { parseTomlDocument } from '@gantry/daemon/server/config/toml-document.ts';

/** `kept`: there was one already, and it was left alone; `none`: containerd has none. */
export type CarriedConfig = 'written' | 'kept' | 'none';

/** Where two daemons must not be in the same place. */
const apart = [
  /^root$/,
  /^state$/,
  /^temp$/,
  /^imports$/,
  /^plugins\.io\.containerd\.server\.v1\.[^.]+\.address$/,
  /^plugins\.io\.containerd\.(snapshotter|content)\.v1\.[^.]+\.root_path$/,
  /^plugins\.io\.containerd\.internal\.v1\.opt\.path$/,
  /^plugins\.io\.containerd\.shim\.v1\.manager\.socket_dir$/,
];

/** containerd's file in the newest version, its comments and order kept; what names places of containerd's own becomes a comment. */
export function carriedText(source: string, file: string): string {
  const { text } = migrateText(source, parseToml(source, file), file);
  const lines = text.split('\n');
  for (const { kind, path: where, line, text: value } of parseTomlDocument(text, file).statements) {
    if (kind !== 'value' || !apart.some((pattern) => pattern.test(where.join('.')))) continue;
    const last = line + value.split('\n').length - 1;
    for (let at = line; at <= last; at++) lines[at - 1] = `# containerd's: ${lines[at - 1]!.trim()}`;
  }
  return lines.join('\n');
}

/** Writes it unless there is one. */
export function carryConfig(from: string | undefined, to: string): CarriedConfig {
  if (existsSync(to)) return 'kept';
  if (from === undefined) return 'none';
  const text = carriedText(readFileSync(from, 'utf8'), from);
  mkdirSync(path.dirname(to), { recursive: true, mode: 0o755 });
  writeFileSync(`${to}.new`, text, { mode: 0o644 });
  renameSync(`${to}.new`, to);
  return 'written';
}
