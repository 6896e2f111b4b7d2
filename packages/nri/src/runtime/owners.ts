import { create } from '@bufbuild/protobuf';
import { invalidArgument } from '@gantry/api';
import {
  Field,
  type FieldOwners,
  type OwningPlugins,
  OwningPluginsSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { isRemoval, removalMark } from './removal-marks.ts';

/** Which plugin has set what of which container, so that no two set the same. */
export class Owners {
  /** As validators are given it. */
  readonly message: OwningPlugins = create(OwningPluginsSchema);

  /** @param key of a field with many entries @throws InvalidArgument naming both plugins, if another has set it */
  claim(container: string, field: Field, plugin: string, key?: string): void {
    const owners = this.#of(container);
    const other = key === undefined ? owners.simple[field] : owners.compound[field]?.owners[key];
    // What one has cleared the next may set, whoever that is.
    if (other !== undefined && !isRemoval(other)) {
      const what = `${Field[field]} ${key ?? ''}`;
      throw invalidArgument(`plugins ${JSON.stringify(plugin)} and ${JSON.stringify(other)} both tried to set ${what}`);
    }
    this.#set(owners, field, key, plugin);
  }

  /** A plugin removes what others have set. */
  clear(container: string, field: Field, plugin: string, key?: string): void {
    this.#set(this.#of(container), field, key, removalMark(plugin));
  }

  /** For what all plugins may add to. */
  join(container: string, field: Field, plugin: string): void {
    const owners = this.#of(container);
    const others = owners.simple[field];
    owners.simple[field] = others === undefined ? plugin : `${others},${plugin}`;
  }

  /** Who has set the entries of a field, by key. */
  entries(container: string, field: Field): Record<string, string> {
    return this.message.owners[container]?.compound[field]?.owners ?? {};
  }

  #of(container: string): FieldOwners {
    this.message.owners[container] ??= create(OwningPluginsSchema, { owners: { x: {} } }).owners['x']!;
    return this.message.owners[container];
  }

  #set(owners: FieldOwners, field: Field, key: string | undefined, value: string): void {
    if (key === undefined) owners.simple[field] = value;
    else {
      owners.compound[field] ??= create(OwningPluginsSchema, {
        owners: { x: { compound: { [field]: {} } } },
      }).owners['x']!.compound[field]!;
      owners.compound[field].owners[key] = value;
    }
  }
}
