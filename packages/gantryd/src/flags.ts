// The command line of gantryd: containerd's flags, before or after the sub-command's name as its parser takes them.
import { parseArgs } from 'node:util';

export const defaultConfigPath = '/etc/gantry/config.toml';
export const defaultAddress = '/run/gantry/gantry.sock';

export interface Flags {
  config: string | undefined;
  address: string | undefined;
  root: string | undefined;
  state: string | undefined;
  logLevel: string | undefined;
  version: boolean;
  help: boolean;
  /** The sub-command and what follows it, flags of its own included. */
  rest: string[];
}

/** Splits the daemon's own flags from the sub-command. @throws Error with a readable message for an unknown flag */
export function parseFlags(args: readonly string[]): Flags {
  const options = {
    config: { type: 'string', short: 'c' },
    address: { type: 'string', short: 'a' },
    root: { type: 'string' },
    state: { type: 'string' },
    'log-level': { type: 'string', short: 'l' },
    version: { type: 'boolean', short: 'v' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  // Go's parsers take `-flag` for `--flag`; scripts rely on it.
  const normal = args.map((arg) => (/^-[a-z-]{2,}(=|$)/.test(arg) && !arg.startsWith('--') ? `-${arg}` : arg));
  const end = endOfFlags(normal, options);
  const { values } = parseArgs({ args: normal.slice(0, end), options, strict: true, allowPositionals: false });
  return {
    config: values.config,
    address: values.address,
    root: values.root,
    state: values.state,
    logLevel: values['log-level'],
    version: values.version ?? false,
    help: values.help ?? false,
    rest: args.slice(end),
  };
}

/** Where the sub-command begins: the first word that is neither a flag nor a flag's value. */
function endOfFlags(args: readonly string[], options: Record<string, { type: string; short?: string }>): number {
  for (let at = 0; at < args.length; at++) {
    const arg = args[at]!;
    if (!arg.startsWith('-')) return at;
    if (arg.includes('=')) continue;
    const name = arg.replace(/^-+/, '');
    const option = options[name] ?? Object.values(options).find((one) => one.short === name);
    if (option?.type === 'string') at++;
  }
  return args.length;
}
