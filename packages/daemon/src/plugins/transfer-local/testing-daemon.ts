import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { encodeTarHeader, tarEnd, tarPadding } from '@gantry/archive/tar-encode.ts';
import { digestOf } from '@gantry/oci';
import { createLogger } from '../../core/log/log-writer.ts';
import { localContentPlugin } from '../content-local/content-plugin.ts';
import { walkingDifferPlugin } from '../diff-walking/plugin.ts';
import { exchangePlugin, gcSchedulerPlugin, leaseManagerPlugin } from '../metadata/metadata-faces.ts';
import { metadataPlugin } from '../metadata/metadata-plugin.ts';
import { mountManagerPlugin } from '../mount-manager/plugin.ts';
import { nativePlugin } from '../snapshot-native/native-plugin.ts';
import { overlayfsPlugin } from '../snapshot-overlayfs/overlay-plugin.ts';
import { streamingManager } from '../streaming/streaming-plugin.ts';
import { localTransfer } from './transfer-plugin.ts';

/** For tests of transfers that reach the disk: layers, a whole daemon, and what it made. */

/** An entry of a layer; a name that ends with a slash is a directory. */
export interface Entry {
  path: string;
  type?: '0' | '1' | '2' | '5';
  text?: string;
  mode?: number;
  link?: string;
  uid?: number;
}

/** A layer of these entries. */
export function tar(entries: readonly Entry[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const { path: name, type = name.endsWith('/') ? '5' : '0', text = '', mode, link = '', uid = 0 } of entries) {
    const header = { type, path: name, linkPath: link, mode: mode ?? (type === '5' ? 0o755 : 0o644), mtime: 1000, uid };
    parts.push(encodeTarHeader({ ...header, size: text.length }), Buffer.from(text));
    parts.push(Buffer.alloc(tarPadding(text.length)));
  }
  return Buffer.concat([...parts, tarEnd()]);
}

/** What `createDaemon` makes a daemon of with what transfers need and nothing else, under `directory`/`name`. */
export function daemonOptions(directory: string, name: string, unpacks: number) {
  return {
    plugins: [
      localContentPlugin,
      nativePlugin,
      overlayfsPlugin,
      exchangePlugin,
      metadataPlugin,
      mountManagerPlugin,
      gcSchedulerPlugin,
      leaseManagerPlugin,
      walkingDifferPlugin,
      streamingManager,
      localTransfer,
    ],
    root: path.join(directory, name, 'root'),
    state: path.join(directory, name, 'state'),
    config: { plugins: { 'io.containerd.transfer.v1.local': { max_concurrent_unpacks: unpacks } } },
    log: createLogger({ level: 'error', format: 'text', write: () => undefined }),
  };
}

/** Every file with what matters of it; a directory's time is that of the last write to it, which differs by snapshotter. */
export function listing(root: string, at = ''): string[] {
  const lines: string[] = [];
  for (const name of readdirSync(path.join(root, at)).sort()) {
    const file = path.join(at, name);
    const stat = lstatSync(path.join(root, file));
    const content = stat.isFile() ? digestOf(readFileSync(path.join(root, file))).slice(7, 19) : '';
    const time = stat.isDirectory() ? '' : stat.mtimeMs;
    lines.push(`${file} ${stat.mode.toString(8)} ${stat.uid} ${time} ${content}`);
    if (stat.isDirectory()) lines.push(...listing(root, file));
  }
  return lines;
}
