import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument, notFound, StatusError } from '@gantry/api';
import { parseJson } from '../json-codec.ts';
import type { RuntimeSpec } from '../spec/runtime-spec.ts';
import { applyEdits } from './apply-edits.ts';
import type { CdiRegistry } from './cdi-registry.ts';
import type { CdiDevice, CdiSpec } from './cdi-spec.ts';
import { isDeviceName } from './device-name.ts';
import { readSpec } from './read-spec.ts';
import { parseYaml } from './yaml.ts';

/** A file larger than this is no specification. */
const largestFile = 16 << 20;

interface LoadedFile {
  /** Changes with the file. */
  stamp: string;
  spec?: CdiSpec;
  problem?: string;
}

interface KnownDevice {
  spec: CdiSpec;
  device: CdiDevice;
  file: string;
  /** Place of its directory in the list: later ones come before earlier. */
  priority: number;
}

/** Where administrators and vendors put specifications; those made at run time come before those installed. */
export const defaultCdiDirectories = ['/etc/cdi', '/var/run/cdi'];

/**
 * Devices of the specifications (`*.json`, `*.yaml`) in some directories. They are looked at for every injection, and files read
 * anew that have changed, so what was written before a call is seen by it.
 */
export class CdiDirectories implements CdiRegistry {
  readonly #directories: readonly string[];
  readonly #onProblem: (file: string, problem: string) => void;
  readonly #files = new Map<string, LoadedFile>();
  #told = new Map<string, string>();
  #refreshing: Promise<Map<string, KnownDevice>> | undefined;

  /** `onProblem` is told of each file with a mistake or a conflict, once until that changes. */
  constructor(
    directories: readonly string[] = defaultCdiDirectories,
    onProblem: (file: string, problem: string) => void = () => undefined,
  ) {
    this.#directories = directories;
    this.#onProblem = onProblem;
  }

  async inject(spec: RuntimeSpec, devices: readonly string[]): Promise<void> {
    if (devices.length === 0) return;
    const known = await this.#devices();
    const missing = devices.filter((name) => !known.has(name));
    if (missing.length > 0) {
      const problem = `CDI device injection failed: unresolvable CDI devices ${missing.join(', ')}`;
      throw missing.every(isDeviceName) ? notFound(`${problem}: not found`) : invalidArgument(problem);
    }
    const edited = new Set<CdiSpec>();
    // On a copy: a device that the host has not must leave no half of its edits.
    const copy = structuredClone(spec);
    try {
      for (const name of devices) {
        const { spec: source, device } = known.get(name)!;
        if (!edited.has(source)) applyEdits(copy, source.containerEdits ?? {});
        edited.add(source);
        applyEdits(copy, device.containerEdits);
      }
    } catch (reason) {
      if (reason instanceof StatusError) throw reason;
      throw invalidArgument(
        `CDI device injection failed: failed to inject devices: ${(reason as Error).message}: invalid argument`,
        reason,
      );
    }
    Object.assign(spec, copy);
  }

  /** Qualified names of all devices, in order. */
  async list(): Promise<string[]> {
    return [...(await this.#devices()).keys()].sort();
  }

  /** What is wrong with which file, as found last. */
  async problems(): Promise<ReadonlyMap<string, string>> {
    await this.#devices();
    return this.#told;
  }

  close(): void {
    this.#files.clear();
  }

  /** One look at the disk serves all who ask while it goes on, as long as it began after they asked. */
  async #devices(): Promise<Map<string, KnownDevice>> {
    await this.#refreshing?.catch(() => undefined);
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<Map<string, KnownDevice>> {
    const devices = new Map<string, KnownDevice>();
    const conflicts = new Set<string>();
    const problems = new Map<string, string>();
    const present = new Set<string>();
    for (const [priority, directory] of this.#directories.entries()) {
      for (const file of await filesIn(directory, problems)) {
        present.add(file);
        const { spec, problem } = await this.#load(file);
        if (problem !== undefined) problems.set(file, `failed to load CDI Spec: ${problem}`);
        for (const device of spec?.devices ?? []) {
          const name = `${spec!.kind}=${device.name}`;
          const other = devices.get(name);
          if (other && other.priority === priority) {
            conflicts.add(name);
            const problem = `conflicting device ${JSON.stringify(name)} (specs "${file}", "${other.file}")`;
            for (const each of [file, other.file]) problems.set(each, problem);
          } else devices.set(name, { spec: spec!, device, file, priority });
        }
      }
    }
    // Of two that are equal in rank neither is right.
    for (const name of conflicts) devices.delete(name);
    for (const file of this.#files.keys()) if (!present.has(file)) this.#files.delete(file);
    for (const [file, problem] of problems) if (this.#told.get(file) !== problem) this.#onProblem(file, problem);
    this.#told = problems;
    return devices;
  }

  async #load(file: string): Promise<LoadedFile> {
    const loaded: LoadedFile = { stamp: '' };
    try {
      const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const { mtimeNs, ctimeNs, size, ino, dev } = await handle.stat({ bigint: true });
        loaded.stamp = [mtimeNs, ctimeNs, size, ino, dev].join(' ');
        const before = this.#files.get(file);
        if (before?.stamp === loaded.stamp) return before;
        if (size > largestFile) throw new Error(`${size} bytes are too many for a specification`);
        loaded.spec = readSpec(await parse(file, await handle.readFile('utf8')));
      } finally {
        await handle.close();
      }
    } catch (reason) {
      loaded.problem = reason instanceof Error ? reason.message : String(reason);
    }
    this.#files.set(file, loaded);
    return loaded;
  }
}

/** JSON is YAML too, and a file in YAML is read whatever its name says. */
async function parse(file: string, text: string): Promise<unknown> {
  if (!file.endsWith('.json')) return parseYaml(text);
  try {
    return parseJson(text);
  } catch (reason) {
    return parseYaml(text).catch(() => {
      throw reason;
    });
  }
}

async function filesIn(directory: string, problems: Map<string, string>): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory() && /\.(json|yaml)$/.test(entry.name))
      .map((entry) => path.join(directory, entry.name))
      .sort();
  } catch (reason) {
    const { code, message } = reason as NodeJS.ErrnoException;
    if (code !== 'ENOENT') problems.set(directory, message);
    return [];
  }
}
