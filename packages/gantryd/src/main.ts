// gantryd: runs the daemon, or answers a sub-command. Each is imported when it is asked for: shims call `publish` for every event,
// which must not load the whole daemon.
import { readFileSync } from 'node:fs';
import { version } from '@gantry/daemon/core/version/version.ts';
import { defaultAddress, defaultConfigPath, parseFlags } from './flags.ts';

const usage = `gantryd - a container runtime daemon with the API of containerd

Usage: gantryd [flags] [command]

Commands:
  config default          print the default configuration
  config dump             print the configuration in effect: the file, its imports and every default
  config migrate          print the configuration file in the newest version of its format, comments and order kept
  config check            list what is unknown, deprecated, removed or wrong in the file and its imports, by line
  migrate                 take over from a stopped containerd (--from-containerd; --dry-run, --back, --format json;
                          --root, --state, --address, --config after it are containerd's)
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
    case undefined: {
      const { serve } = await import('./serve.ts');
      await serve(flags);
      return 0;
    }
    case 'help':
      print(usage);
      return 0;
    case 'config': {
      const { configCommand } = await import('./config-command.ts');
      return configCommand(rest, flags, print, (text) => void process.stderr.write(`gantryd: warning: ${text}\n`));
    }
    case 'migrate': {
      const { migrateCommand } = await import('./migrate-command.ts');
      return migrateCommand(rest, flags, print);
    }
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
