import { readdirSync, rmSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseJson, stringifyJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import { type Attachment, checkContainerId } from './attachment.ts';
import { type NetworkConfig, readNetworkList } from './network-config.ts';

/** What a container's networks were to be made with, noted before the first ADD. */
export interface LedgerEntry {
  containerId: string;
  netns: string;
  args: [string, string][];
  capabilityArgs: Record<string, unknown>;
  attachments: {
    interfaceName: string;
    /** The network's list as it was configured, JSON. */
    config: string;
  }[];
}

/** An attachment, and the network it is in. */
export type NetworkAttachment = [NetworkConfig, Attachment];

export function attachmentOf(
  { containerId, netns, args, capabilityArgs }: LedgerEntry,
  interfaceName: string,
): Attachment {
  return { containerId, netns, interfaceName, args, capabilityArgs };
}

export function attachmentsOf(entry: LedgerEntry): NetworkAttachment[] {
  return entry.attachments.map(({ config, interfaceName }) => [
    readNetworkList(config),
    attachmentOf(entry, interfaceName),
  ]);
}

const version = 1;

/** Which containers a daemon has asked plugins for, one file each, from before ADD until after DEL, so that none is forgotten when it is killed. */
export class AttachmentLedger {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  #file(containerId: string): string {
    checkContainerId(containerId);
    return path.join(this.#directory, `${containerId}.json`);
  }

  /** A daemon killed after this finds it. It is not synced: after a power cut its name is there if plugins' own files are, which is enough to go on. */
  async note(entry: LedgerEntry): Promise<void> {
    const file = this.#file(entry.containerId);
    const draft = `${file}.draft`;
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await writeFile(draft, stringifyJson({ version, ...entry }), { mode: 0o600 });
    await rename(draft, file);
  }

  /** `damaged` if it is noted, but not readable. */
  async get(containerId: string): Promise<LedgerEntry | 'damaged' | undefined> {
    let text: Buffer;
    try {
      text = await readFile(this.#file(containerId));
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
    try {
      const { version: written, ...entry } = parseJson<LedgerEntry & { version: number }>(text);
      return written === version ? entry : 'damaged';
    } catch {
      return 'damaged';
    }
  }

  async forget(containerId: string): Promise<void> {
    await rm(this.#file(containerId), { force: true });
  }

  /** All that are noted and readable. */
  async list(): Promise<LedgerEntry[]> {
    const found: LedgerEntry[] = [];
    for (const name of await this.#names()) {
      const entry = name.endsWith('.json') ? await this.get(name.slice(0, -'.json'.length)) : undefined;
      if (entry && entry !== 'damaged') found.push(entry);
    }
    return found;
  }

  /** Containers that an earlier daemon has noted. What it was just writing is removed: nothing was asked for that. */
  begin(): string[] {
    let names: string[];
    try {
      names = readdirSync(this.#directory).sort();
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
    for (const name of names) if (name.endsWith('.draft')) rmSync(path.join(this.#directory, name), { force: true });
    return names.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length));
  }

  async #names(): Promise<string[]> {
    try {
      return (await readdir(this.#directory)).sort();
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }
}
