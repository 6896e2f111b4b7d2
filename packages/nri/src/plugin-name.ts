import { invalidArgument } from '@gantry/api';

/** How a plugin is known: plugins take their turns in the order of their indices, two digits each. */
export interface PluginIdentity {
  index: string;
  name: string;
}

/** @throws InvalidArgument */
export function checkIdentity({ index, name }: PluginIdentity): void {
  if (!/^\d\d$/.test(index)) throw invalidArgument(`invalid plugin index ${JSON.stringify(index)}, must be 2 digits`);
  if (name === '') throw invalidArgument('invalid plugin name: name is empty');
  const bad = /[^\w.+-]/.exec(name);
  if (bad) {
    throw invalidArgument(`invalid plugin name ${JSON.stringify(name)}: contains invalid character '${bad[0]}'`);
  }
}

/** The identity in the file name of a plugin: `10-logger`. @throws InvalidArgument */
export function parsePluginName(file: string): PluginIdentity {
  const dash = file.indexOf('-');
  if (dash < 0) throw invalidArgument(`invalid plugin name ${JSON.stringify(file)}, idx-pluginname expected`);
  const identity = { index: file.slice(0, dash), name: file.slice(dash + 1) };
  checkIdentity(identity);
  return identity;
}
