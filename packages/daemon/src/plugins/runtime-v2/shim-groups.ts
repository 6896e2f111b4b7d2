import type { Bundle } from './bundle.ts';
import type { DescriptorStore } from './descriptor-store.ts';
import type { GroupFile } from './group-file.ts';
import { type RuntimePath, type RuntimePathSettings, resolveRuntime } from './runtime-path.ts';
import { ShimGroup, type ShimSettings } from './shim-group.ts';

/** The shim of a sandbox, for the tasks that go there. */
export interface SandboxShim {
  group: ShimGroup;
  /** What a task's bundle there has to say, so that a daemon that is started again finds the same shim. */
  file: GroupFile;
}

/** All shims that the daemon is connected to, those of tasks and those of sandboxes: containerd's shim manager. */
export class ShimGroups {
  readonly runtimes: RuntimePathSettings;
  readonly shims: ShimSettings;
  /** Whether shims of our own are shared by many containers (their default). */
  readonly share: boolean;
  /** Keeps descriptors of containers for shims of ours; absent where its socket could not be made. */
  readonly descriptors: DescriptorStore | undefined;
  readonly #groups = new Map<string, ShimGroup>();
  readonly #sandboxes = new Map<string, SandboxShim>();
  #takenGone: () => void = () => undefined;

  constructor(settings: {
    runtimes: RuntimePathSettings;
    shims: ShimSettings;
    share: boolean;
    descriptors?: DescriptorStore | undefined;
  }) {
    this.descriptors = settings.descriptors;
    this.runtimes = settings.runtimes;
    this.shims = settings.shims;
    this.share = settings.share;
  }

  /** @throws StatusError InvalidArgument for a name that is none, NotFound if there is no such program */
  resolve(runtime: string): Promise<RuntimePath> {
    return resolveRuntime(runtime, this.runtimes);
  }

  /** The shim that a bundle's task or sandbox lives in, or is to be started in. */
  of(bundle: Bundle, runtime: RuntimePath, file: GroupFile): ShimGroup {
    const key = groupKey(bundle, runtime, file);
    const present = this.#groups.get(key);
    if (present) return present;
    const group = new ShimGroup(key, runtime, file.options, this.shims, (empty) => {
      if (this.#groups.get(empty.key) === empty) this.#groups.delete(empty.key);
    });
    group.borrowed = file.borrowed;
    group.onRemoved = (member) => {
      if (member.files.taken) this.#takenGone();
    };
    this.#groups.set(key, group);
    return group;
  }

  /** Sockets to which shims that were taken over from containerd send their events. */
  takenAddresses(): Set<string> {
    const members = [...this.#groups.values()].flatMap((group) => [...group.members]);
    return new Set(members.flatMap(({ files }) => (files.taken ? [files.taken.ttrpcAddress] : [])));
  }

  /** Has `listener` called whenever something that lived in such a shim is gone. */
  onTakenGone(listener: () => void): void {
    this.#takenGone = listener;
  }

  addSandbox(namespace: string, id: string, shim: SandboxShim): void {
    this.#sandboxes.set(`${namespace}/${id}`, shim);
  }

  removeSandbox(namespace: string, id: string): void {
    this.#sandboxes.delete(`${namespace}/${id}`);
  }

  /**
   * The shim of a sandbox, if its tasks may be created there without a `start` of their own, which version 3 of the task API says.
   * undefined for sandboxes that have none here: those of other controllers.
   */
  async ofSandbox(namespace: string, id: string): Promise<SandboxShim | undefined> {
    const shim = this.#sandboxes.get(`${namespace}/${id}`);
    if (!shim?.group.alive) return undefined;
    const { bootstrap } = await shim.group.connection();
    return bootstrap.version >= 3 ? shim : undefined;
  }

  /** The daemon ends: containers and their shims stay; shims of ours with nothing in them go. */
  async close(): Promise<void> {
    await Promise.all(
      [...this.#groups.values()].map((group) =>
        group.members.size === 0 ? group.shutdown({ id: '', namespace: 'default' }) : group.detach(),
      ),
    );
  }
}

function groupKey(bundle: Bundle, runtime: RuntimePath, { shared, sandbox, options }: GroupFile): string {
  if (shared) return ShimGroup.keyFor(bundle.namespace, runtime, options);
  // No id has a space.
  return sandbox ? `sandbox ${bundle.namespace}/${sandbox}` : `${bundle.namespace}/${bundle.id}`;
}
