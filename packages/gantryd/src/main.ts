// gantryd: assembles the daemon from its plugins and runs it, or answers a sub-command.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { createDaemon, parseLogLevel, runUntilSignal, version } from '@gantry/daemon';
import { configCommand, defaultConfigPath } from './config-command.ts';
import { type Flags, parseFlags } from './flags.ts';
import { builtinPlugins } from './plugins.ts';

const defaultAddress = '/run/gantry/gantry.sock';

const usage = `gantryd - a container runtime daemon with the API of containerd

Usage: gantryd [flags] [command]

Commands:
  config default          print the default configuration
  config dump             print the configuration in effect: the file, its imports and every default
  config migrate          print the configuration file in the newest version of its format
  publish                 pass an event from standard input on to the daemon (--topic, --namespace)
  oci-hook -- CMD ARGS    run a command as an OCI hook, with {{id}}, {{pid}}, {{bundle}}, {{rootfs}} filled in

Flags:
  --config, -c FILE       configuration file (default: ${defaultConfigPath}, if it is there)
  --address, -a PATH      socket for clients (default: ${defaultAddress})
  --root DIR              directory for what lasts (default: /var/lib/gantry)
  --state DIR             directory for what a reboot ends (default: /run/gantry)
  --log-level, -l LEVEL   trace, debug, info, warn, error, fatal or panic
  --version, -v           print the version
  --help, -h              print this

Example: gantryd --root /var/lib/gantry --state /run/gantry --log-level debug
`;

/** Where the bundles are: beside this one, or, when run from source, in the project's dist/. */
function programDir(): string {
  return import.meta.url.endsWith('.ts') ? path.resolve(import.meta.dirname, '../../../dist') : import.meta.dirname;
}

async function serve(flags: Flags): Promise<void> {
  const level = flags.logLevel === undefined ? undefined : parseLogLevel(flags.logLevel);
  if (flags.logLevel !== undefined && level === undefined) {
    throw new Error(`not a valid log level: ${JSON.stringify(flags.logLevel)}`);
  }
  const daemon = await createDaemon({
    plugins: builtinPlugins,
    configPath: flags.config ?? defaultConfigPath,
    configOptional: flags.config === undefined,
    root: flags.root && path.resolve(flags.root),
    state: flags.state && path.resolve(flags.state),
    address: flags.address && path.resolve(flags.address),
    logLevel: level,
    programDir: programDir(),
    ownProcess: true,
  });
  await runUntilSignal(daemon);
}

/** Runs the command line, and answers the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const flags = parseFlags(args);
  const print = (text: string) => void process.stdout.write(text);
  if (flags.help) {
    print(usage);
    return 0;
  }
  if (flags.version) {
    print(`gantryd github.com/containerd/containerd/v2 ${version.version} ${version.revision}\n`);
    return 0;
  }
  const [command, ...rest] = flags.rest;
  switch (command) {
    case undefined:
      await serve(flags);
      return 0;
    case 'help':
      print(usage);
      return 0;
    case 'config':
      await configCommand(rest, flags, print, (text) => void process.stderr.write(`gantryd: warning: ${text}\n`));
      return 0;
    case 'publish': {
      const { publishCommand } = await import('./publish-command.ts');
      await publishCommand(rest, flags.address ?? defaultAddress, readFileSync(0));
      return 0;
    }
    case 'oci-hook': {
      const { ociHook } = await import('./oci-hook.ts');
      return ociHook(rest, readFileSync(0, 'utf8'));
    }
    default:
      throw new Error(`unknown command ${JSON.stringify(command)}; see gantryd --help`);
  }
}
