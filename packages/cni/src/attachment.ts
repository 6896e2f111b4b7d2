import { invalidArgument } from '@gantry/api';

/** An interface of one container, in one network. */
export interface Attachment {
  containerId: string;
  /** Path of its network namespace; '' if that is gone. */
  netns: string;
  interfaceName: string;
  /** For `CNI_ARGS`, in order. */
  args: readonly (readonly [string, string])[];
  /** By capability; a plugin is told those that its configuration says it has. */
  capabilityArgs: Readonly<Record<string, unknown>>;
}

/** An id becomes part of file names, here and in plugins. @throws InvalidArgument */
export function checkContainerId(id: string): void {
  if (id === '') throw invalidArgument('missing containerID');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(id)) throw invalidArgument(`invalid characters in containerID; ${id}`);
}

/** @throws InvalidArgument */
export function checkInterfaceName(name: string): void {
  if (name === '' || Buffer.byteLength(name) > 15 || name === '.' || name === '..' || /[/:\s]/.test(name))
    throw invalidArgument(`invalid interface name ${JSON.stringify(name)}`);
}
