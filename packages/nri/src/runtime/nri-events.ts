import { clone, create } from '@bufbuild/protobuf';
import { permissionDenied, StatusError } from '@gantry/api';
import {
  type Container,
  type ContainerAdjustment,
  ContainerSchema,
  type ContainerUpdate,
  Event,
  type LinuxResources,
  type PodSandbox,
  ValidateContainerAdjustmentRequestSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { AdjustmentCollector } from './collect-adjustment.ts';
import { UpdateCollector } from './collect-updates.ts';
import { type DefaultValidatorSettings, validateByDefault } from './default-validator.ts';
import { Owners } from './owners.ts';
import { type Notification, notifications } from './plugin-calls.ts';
import type { PluginLink } from './plugin-link.ts';

/** What plugins want of containers other than the one that the event is about. */
export interface Consequences {
  updates: ContainerUpdate[];
  evictions: readonly { containerId: string; reason: string }[];
}

/**
 * The plugins in the order of their indices, and what happens to pods and containers told to them: one event after the other, so that
 * each plugin sees them in order and none decides on what another is just changing.
 */
export class NriEvents {
  readonly #plugins: PluginLink[] = [];
  readonly #validator: DefaultValidatorSettings;
  #last: Promise<unknown> = Promise.resolve();

  constructor(validator: DefaultValidatorSettings) {
    this.#validator = validator;
  }

  get plugins(): readonly PluginLink[] {
    return this.#plugins;
  }

  /** Between two events. @returns what `work` does */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#last.then(work);
    this.#last = next.catch(() => undefined);
    return next;
  }

  add(...plugins: PluginLink[]): void {
    this.#plugins.push(...plugins.filter(({ closed }) => !closed));
    this.#plugins.sort((one, other) => (one.index < other.index ? -1 : one.index > other.index ? 1 : 0));
  }

  remove(plugin: PluginLink): void {
    const at = this.#plugins.indexOf(plugin);
    if (at >= 0) this.#plugins.splice(at, 1);
  }

  /** Whether there is anyone to ask. */
  wanted(event: Event): boolean {
    // What nobody changes is validated too.
    const validates = event === Event.CREATE_CONTAINER;
    if (validates && (this.#validator.enable || this.wanted(Event.VALIDATE_CONTAINER_ADJUSTMENT))) return true;
    return this.#plugins.some((plugin) => plugin.wants(event));
  }

  notify(name: Notification, pod: PodSandbox, container?: Container): Promise<void> {
    return this.exclusively(async () => {
      for (const plugin of this.#takingPart(notifications[name])) await plugin.notify(name, pod, container);
    });
  }

  updatePodSandbox(pod: PodSandbox, overhead: LinuxResources, resources: LinuxResources): Promise<void> {
    return this.exclusively(async () => {
      const request = { pod, overheadLinuxResources: overhead, linuxResources: resources };
      for (const plugin of this.#takingPart(Event.UPDATE_POD_SANDBOX)) {
        await plugin.ask(Event.UPDATE_POD_SANDBOX, (client, options) => client.updatePodSandbox(request, options));
      }
    });
  }

  /** @throws InvalidArgument for plugins in conflict, PermissionDenied if a validator refuses */
  createContainer(pod: PodSandbox, container: Container): Promise<{ adjustment: ContainerAdjustment } & Consequences> {
    return this.exclusively(async () => {
      const owners = new Owners();
      const original = clone(ContainerSchema, container);
      const collector = new AdjustmentCollector(container, owners);
      const others = new UpdateCollector(owners, container.id);
      const present = [...this.#plugins];
      // One that ends before it is asked has not allowed it.
      const validators = this.#takingPart(Event.VALIDATE_CONTAINER_ADJUSTMENT);
      for (const plugin of this.#takingPart(Event.CREATE_CONTAINER)) {
        const answer = await plugin.ask(Event.CREATE_CONTAINER, (client, options) =>
          client.createContainer({ pod, container: collector.container }, options),
        );
        if (!answer) continue;
        if (answer.adjust) collector.add(answer.adjust, plugin.name);
        others.add(answer.update, answer.evict, plugin.name);
      }
      const { adjustment } = collector;
      const { updates, evictions } = others;
      await this.#validate(pod, original, adjustment, updates, owners, present, validators);
      return { adjustment, updates, evictions };
    });
  }

  /** @returns the limits that the container is to have instead of those asked for */
  updateContainer(
    pod: PodSandbox,
    container: Container,
    asked: LinuxResources,
  ): Promise<{ resources: LinuxResources } & Consequences> {
    return this.exclusively(async () => {
      const collector = new UpdateCollector();
      collector.begin(container.id, asked);
      for (const plugin of this.#takingPart(Event.UPDATE_CONTAINER)) {
        const linuxResources = collector.resourcesOf(container.id) ?? asked;
        const answer = await plugin.ask(Event.UPDATE_CONTAINER, (client, options) =>
          client.updateContainer({ pod, container, linuxResources }, options),
        );
        if (answer) collector.add(answer.update, answer.evict, plugin.name);
      }
      const updates = collector.updates.filter(({ containerId }) => containerId !== container.id);
      return { resources: collector.resourcesOf(container.id) ?? asked, updates, evictions: collector.evictions };
    });
  }

  stopContainer(pod: PodSandbox, container: Container): Promise<Consequences> {
    return this.exclusively(async () => {
      const collector = new UpdateCollector();
      for (const plugin of this.#takingPart(Event.STOP_CONTAINER)) {
        const answer = await plugin.ask(Event.STOP_CONTAINER, (client, options) =>
          client.stopContainer({ pod, container }, options),
        );
        if (answer) collector.add(answer.update, [], plugin.name);
      }
      return { updates: collector.updates, evictions: [] };
    });
  }

  /** A copy: who is cut off on the way leaves the list. */
  #takingPart(event: Event): PluginLink[] {
    return this.#plugins.filter((plugin) => plugin.wants(event));
  }

  async #validate(
    pod: PodSandbox,
    container: Container,
    adjust: ContainerAdjustment,
    update: ContainerUpdate[],
    owners: Owners,
    present: readonly PluginLink[],
    validators: readonly PluginLink[],
  ): Promise<void> {
    const event = Event.VALIDATE_CONTAINER_ADJUSTMENT;
    if (validators.length === 0 && !this.#validator.enable) return;
    const request = create(ValidateContainerAdjustmentRequestSchema, {
      pod,
      container,
      adjust,
      update,
      owners: owners.message,
      plugins: present.map(({ baseName, index }) => ({ name: baseName, index })),
    });
    if (this.#validator.enable) {
      await validateByDefault(request, this.#validator).catch((reason) => {
        throw StatusError.wrap(reason, 'validator "00-default-validator" rejected container adjustment, reason');
      });
    }
    await Promise.all(
      validators.map(async (plugin) => {
        const answer = await plugin
          .ask(event, (client, options) => client.validateContainerAdjustment(request, options))
          .catch((reason) => {
            throw StatusError.wrap(reason, `validator plugin ${plugin.name} failed`);
          });
        // One that was asked and did not answer has not allowed it.
        if (!answer) throw permissionDenied(`validator plugin ${plugin.name} failed: no answer`);
        if (answer.reject) {
          const reason = answer.reason || 'unknown rejection reason';
          throw permissionDenied(
            `validator ${JSON.stringify(plugin.name)} rejected container adjustment, reason: ${reason}`,
          );
        }
      }),
    );
  }
}
