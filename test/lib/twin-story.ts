import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { StatusError } from '@gantry/api';
import type { ContainerConfig, PodConfig, Twin } from './cri-twins.ts';

/** What is asked of both. */
export interface TwinCase {
  name: string;
  /** The runtime handler of its pod; '' for the default one. */
  handler?: string;
  /** What its pod has besides a name. Cases with the same handler and pod share one. */
  pod?: PodConfig | ((twin: Twin) => PodConfig);
  /** Without one only the pod is looked at. */
  container?: ContainerConfig | ((twin: Twin) => ContainerConfig);
  /** What a shell in the container is to tell; it is started then. */
  inside?: string;
  /** More that is done with the container, and what that answers. */
  then?: (twin: Twin, container: string, pod: string) => Promise<unknown>;
}

/** What a daemon answered, place by place, without what tells the two apart. */
export type Told = Map<string, string>;

interface Pod {
  id: string;
  config: PodConfig;
  told: Told;
}

/** Asks one of the daemons. */
export class TwinTeller {
  readonly twin: Twin;
  readonly #pods = new Map<string, Promise<Pod>>();
  readonly #names = new Map<string, string>();

  constructor(twin: Twin) {
    this.twin = twin;
  }

  async tell(asked: TwinCase): Promise<Told> {
    const pod = await this.#pod(asked);
    const told: Told = new Map(asked.container ? undefined : pod.told);
    if (pod.id === '') return new Map(pod.told);
    if (!asked.container) return told;
    const { runtime } = this.twin;
    const name = asked.name.replaceAll(/[^a-z0-9]+/gi, '-');
    const given = typeof asked.container === 'function' ? asked.container(this.twin) : asked.container;
    const config: ContainerConfig = {
      metadata: { name, attempt: 0 },
      image: { image: 'busybox:1', userSpecifiedImage: 'busybox:1' },
      command: ['sh', '-c', 'while :; do sleep 1000; done'],
      logPath: `${name}.log`,
      linux: {},
      ...given,
    };
    let id = '';
    try {
      const made = await runtime.createContainer({ podSandboxId: pod.id, config, sandboxConfig: pod.config });
      id = made.containerId;
      this.#names.set(id, 'CONTAINER');
    } catch (error) {
      this.#error(told, 'create', error);
      return told;
    }
    try {
      await this.#container(told, id);
      if (asked.inside !== undefined || asked.then) {
        try {
          await runtime.startContainer({ containerId: id });
        } catch (error) {
          this.#error(told, 'start', error);
          return told;
        }
      }
      if (asked.inside !== undefined) {
        const { stdout, stderr, exitCode } = await runtime.execSync({
          containerId: id,
          cmd: ['sh', '-c', asked.inside],
          timeout: 60n,
        });
        const text = `${Buffer.from(stdout)}${Buffer.from(stderr)}`;
        this.#put(told, 'inside.exit', exitCode);
        for (const [at, line] of text.split('\n').entries()) this.#put(told, `inside.${at}`, line);
      }
      if (asked.then) {
        try {
          this.#put(told, 'then', await asked.then(this.twin, id, pod.id));
        } catch (error) {
          this.#error(told, 'then', error);
        }
      }
    } finally {
      this.#names.delete(id);
      await runtime.removeContainer({ containerId: id });
    }
    return told;
  }

  async #container(told: Told, id: string): Promise<void> {
    const { status, info } = await this.twin.runtime.containerStatus({ containerId: id, verbose: true });
    const { $typeName: _, ...fields } = status!;
    this.#put(told, 'status', fields);
    for (const [key, text] of Object.entries(info)) this.#put(told, `info.${key}`, orderless(JSON.parse(text)));
  }

  #pod(asked: TwinCase): Promise<Pod> {
    const given = typeof asked.pod === 'function' ? asked.pod(this.twin) : (asked.pod ?? {});
    const key = JSON.stringify([asked.handler ?? '', given], (_, value) =>
      typeof value === 'bigint' ? String(value) : value,
    );
    let pod = this.#pods.get(key);
    if (!pod) {
      pod = this.#makePod(
        asked.handler ?? '',
        given,
        createHash('sha1').update(key.replaceAll(this.twin.directory, '')).digest('hex').slice(0, 8),
      );
      this.#pods.set(key, pod);
    }
    return pod;
  }

  async #makePod(runtimeHandler: string, given: PodConfig, name: string): Promise<Pod> {
    const { runtime, directory } = this.twin;
    const config: PodConfig = {
      metadata: { name, namespace: 'twins', uid: `uid-${name}`, attempt: 0 },
      logDirectory: path.join(directory, 'logs', name),
      linux: {},
      ...given,
    };
    const told: Told = new Map();
    let id = '';
    try {
      id = (await runtime.runPodSandbox({ config, runtimeHandler })).podSandboxId;
    } catch (error) {
      this.#error(told, 'run', error);
      return { id: '', config, told };
    }
    this.#names.set(id, 'POD');
    const { status, info } = await runtime.podSandboxStatus({ podSandboxId: id, verbose: true });
    const { $typeName: _, ...fields } = status!;
    this.#put(told, 'status', fields);
    for (const [key, text] of Object.entries(info)) this.#put(told, `info.${key}`, orderless(JSON.parse(text)));
    for (const file of ['hostname', 'hosts', 'resolv.conf'])
      this.#put(
        told,
        `etc.${file}`,
        readFileSync(`${directory}/root/io.containerd.grpc.v1.cri/sandboxes/${id}/${file}`, 'utf8'),
      );
    return { id, config, told };
  }

  #error(told: Told, what: string, error: unknown): void {
    const { code, message } = StatusError.from(error);
    this.#put(told, `${what}.error`, { code, message });
  }

  #put(told: Told, place: string, value: unknown): void {
    if (value instanceof Uint8Array) told.set(place, this.#plain(Buffer.from(value).toString('latin1')));
    else if (typeof value === 'object' && value !== null) {
      const entries = Object.entries(value).filter(([key]) => key !== '$typeName' && key !== '$unknown');
      if (entries.length === 0) told.set(place, Array.isArray(value) ? '[]' : '{}');
      for (const [key, inner] of entries) this.#put(told, this.#plain(`${place}.${key}`), inner);
    } else if (place.endsWith('.pid') && Number(value) > 1) told.set(place, 'PID');
    else told.set(place, this.#plain(String(value)));
  }

  #plain(text: string): string {
    let plain = text.replaceAll(`${this.twin.directory}/`, 'DIR/');
    for (const [id, name] of this.#names) plain = plain.replaceAll(id, name);
    return plain
      .replaceAll(/\b[0-9a-f]{64}\b/g, 'HEX')
      .replaceAll(/\/proc\/\d+\//g, '/proc/PID/')
      .replaceAll(/\b10\.2\d\d\.\d+\.\d+/g, 'IP')
      .replaceAll(/\bveth[0-9a-f]{8}\b|\bgantrytwin[01]\b/g, 'LINK')
      .replaceAll(/\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b/g, 'MAC')
      .replaceAll(/\bcni-[0-9a-f-]{36}\b/g, 'NETNS')
      .replaceAll(/\b1[78]\d{17}\b/g, 'TIME')
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME');
  }
}

/** Filters of system calls say the same in any order, and so do sets. */
function orderless(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(orderless);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      if (key === 'seccomp' && inner) return [key, seccomp(inner as never)];
      if (key === 'devices' && Array.isArray(inner) && inner.some((each) => each?.path))
        return [key, Object.fromEntries(inner.map(({ path: at, ...rest }) => [at, JSON.stringify(rest)]))];
      if (key === 'capabilities' && inner)
        return [
          key,
          Object.fromEntries(
            Object.entries(inner as Record<string, string[]>).map(([k, v]) => [
              k,
              [...(Array.isArray(v) ? v : [])].sort().join(' '),
            ]),
          ),
        ];
      return [key, orderless(inner)];
    }),
  );
}

function seccomp(profile: { syscalls?: { names: string[]; action: string; errnoRet?: number; args?: object[] }[] }) {
  const calls = (profile.syscalls ?? []).flatMap(({ names, ...rest }) =>
    names.map((name) => `${name} ${JSON.stringify(rest)}`),
  );
  return { ...profile, syscalls: calls.sort().join('\n') };
}

/** Where two differ. Of refusals the last words count, which say why, and that a code is not less exact than the other's. */
export function differences(ours: Told, theirs: Told): string[] {
  const places = new Set([...ours.keys(), ...theirs.keys()]);
  return [...places]
    .filter((place) => {
      const [here, there] = [ours.get(place), theirs.get(place)];
      if (here === there) return false;
      if (here === undefined || there === undefined || !/\berror\.(code|message)$/.test(place)) return true;
      return place.endsWith('code') ? there !== unknown : !agree(here, there);
    })
    .map((place) => `${place}: ${short(ours.get(place))} | ${short(theirs.get(place))}`);
}

/** containerd's code for whatever has none. */
const unknown = '2';

function agree(here: string, there: string): boolean {
  const why = (text: string): string =>
    text
      .replace(/: (invalid argument|not found)$/, '')
      .split(/: /)
      .at(-1)!
      .trim();
  return here.includes(why(there)) || there.includes(why(here));
}

function short(text: string | undefined): string {
  return text === undefined ? '-' : JSON.stringify(text.slice(0, 700));
}
