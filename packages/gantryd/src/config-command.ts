// `gantryd config default|dump|migrate`: what the daemon would run with, as TOML.
import { fullConfig, loadConfig, printToml } from '@gantry/daemon';
import { defaultConfigPath, type Flags } from './flags.ts';
import { builtinPlugins } from './plugins.ts';

/** @throws StatusError InvalidArgument for a configuration that is wrong */
export async function configCommand(
  args: readonly string[],
  flags: Flags,
  print: (text: string) => void,
  warn: (text: string) => void,
): Promise<void> {
  const plugins = builtinPlugins;
  switch (args[0]) {
    case 'default':
      return print(printToml(fullConfig({}, plugins)));
    case 'dump': {
      const { raw, warnings } = await load(flags);
      for (const warning of warnings) warn(warning);
      return print(printToml(fullConfig(raw, plugins)));
    }
    case 'migrate': {
      // Only what the file says, so that defaults stay defaults.
      const { raw, warnings } = await load(flags);
      for (const warning of warnings) warn(warning);
      return print(printToml(raw));
    }
    default:
      throw new Error('config: expected one of default, dump, migrate');
  }
}

function load(flags: Flags) {
  return loadConfig({
    path: flags.config ?? defaultConfigPath,
    optional: flags.config === undefined,
    plugins: builtinPlugins,
  });
}
