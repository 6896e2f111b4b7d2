// `gantryd config default|dump|migrate|check`: what the daemon would run with, as TOML, and what of it is not as it should be.
import { readFile } from 'node:fs/promises';
import { checkConfig, fullConfig, loadConfig, migrateText, parseToml, printToml } from '@gantry/daemon';
import { defaultConfigPath, type Flags } from './flags.ts';
import { builtinPlugins } from './plugins.ts';

/** Answers the exit code: 1 if `check` has found something. @throws StatusError InvalidArgument for a configuration that is wrong */
export async function configCommand(
  args: readonly string[],
  flags: Flags,
  print: (text: string) => void,
  warn: (text: string) => void,
): Promise<number> {
  const plugins = builtinPlugins;
  const file = flags.config ?? defaultConfigPath;
  switch (args[0]) {
    case 'default':
      print(printToml(fullConfig({}, plugins)));
      return 0;
    case 'dump': {
      const { raw, warnings } = await load(flags);
      for (const warning of warnings) warn(warning);
      print(printToml(fullConfig(raw, plugins)));
      return 0;
    }
    case 'migrate': {
      // The file's own text: comments stay, defaults stay defaults, what it imports stays where it is.
      const source = await readFile(file, 'utf8');
      const { text, settings } = migrateText(source, parseToml(source, file), file);
      for (const { path, line, to } of settings) {
        if (to.length === 0) warn(`${file}:${line}: ${path.join('.')} is gone in the newest version`);
      }
      print(text);
      return 0;
    }
    case 'check': {
      const findings = await checkConfig(file, plugins);
      for (const { file: where, line, kind, message } of findings) print(`${where}:${line}: ${kind}: ${message}\n`);
      return findings.length > 0 ? 1 : 0;
    }
    default:
      throw new Error('config: expected one of default, dump, migrate, check');
  }
}

function load(flags: Flags) {
  return loadConfig({
    path: flags.config ?? defaultConfigPath,
    optional: flags.config === undefined,
    plugins: builtinPlugins,
  });
}
