import { clone, create } from '@bufbuild/protobuf';
import { invalidArgument } from '@gantry/api';
import {
  type ContainerEviction,
  type ContainerUpdate,
  ContainerUpdateSchema,
  type LinuxResources,
  LinuxResourcesSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { collectResources } from './collect-resources.ts';
import { Owners } from './owners.ts';

/** Gathers new limits that plugins want for containers that are there. */
export class UpdateCollector {
  readonly evictions: ContainerEviction[] = [];
  readonly #owners: Owners;
  readonly #creating: string | undefined;
  readonly #updates = new Map<string, ContainerUpdate>();

  /** @param creating the container that is being made, which is adjusted and not updated */
  constructor(owners: Owners = new Owners(), creating?: string) {
    this.#owners = owners;
    this.#creating = creating;
  }

  /** What was asked for from outside, over which plugins lay theirs. */
  begin(container: string, asked: LinuxResources): void {
    this.#updates.set(
      container,
      create(ContainerUpdateSchema, {
        containerId: container,
        linux: { resources: clone(LinuxResourcesSchema, asked) },
      }),
    );
  }

  /** @throws InvalidArgument for limits that another plugin has set too, unless failure does not matter */
  add(updates: readonly ContainerUpdate[], evictions: readonly ContainerEviction[], plugin: string): void {
    for (const update of updates) this.#add(update, plugin);
    this.evictions.push(...evictions);
  }

  get updates(): ContainerUpdate[] {
    return [...this.#updates.values()];
  }

  /** The limits of one container, with all that was laid over them. */
  resourcesOf(container: string): LinuxResources | undefined {
    return this.#updates.get(container)?.linux?.resources;
  }

  #add({ containerId, linux, ignoreFailure }: ContainerUpdate, plugin: string): void {
    if (containerId === this.#creating) {
      throw invalidArgument(
        `plugin ${JSON.stringify(plugin)} asked update of ${JSON.stringify(containerId)} during creation`,
      );
    }
    const before =
      this.#updates.get(containerId) ??
      create(ContainerUpdateSchema, { containerId, linux: { resources: {} }, ignoreFailure });
    const after = clone(ContainerUpdateSchema, before);
    after.ignoreFailure &&= ignoreFailure;
    try {
      if (linux?.resources) {
        collectResources(this.#owners, containerId, plugin, linux.resources, [after.linux!.resources!]);
      }
    } catch (reason) {
      if (!ignoreFailure) throw reason;
      return;
    }
    this.#updates.set(containerId, after);
  }
}
