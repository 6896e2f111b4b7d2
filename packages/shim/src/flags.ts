/** The command line of a Runtime v2 shim, as containerd calls it: `gantry-shim [flags] start|delete`. */
export interface ShimFlags {
  namespace: string;
  id: string;
  /** containerd's gRPC address. */
  address: string;
  publishBinary: string;
  /** The bundle, where the caller does not make it the working directory. */
  bundle: string;
  /** The directory for the shim's sockets. */
  socket: string;
  debug: boolean;
  info: boolean;
  version: boolean;
  help: boolean;
  /** `start`, `delete`, `serve` (the daemonised server itself), or '' if none was given. */
  action: string;
}

const strings: Record<string, keyof ShimFlags> = {
  namespace: 'namespace',
  id: 'id',
  address: 'address',
  'publish-binary': 'publishBinary',
  bundle: 'bundle',
  socket: 'socket',
};
const booleans: Record<string, keyof ShimFlags> = {
  debug: 'debug',
  info: 'info',
  v: 'version',
  version: 'version',
  h: 'help',
  help: 'help',
};
/** Flags of containerd's own shim that mean nothing here: taken with their value and dropped. */
const ignored = new Set(['debug-socket']);

/** Reads flags as Go's flag package does (`-x v`, `-x=v`, `--x`). @throws Error on an unknown flag or a missing value. */
export function parseFlags(args: readonly string[]): ShimFlags {
  const flags: ShimFlags = {
    namespace: '',
    id: '',
    address: '',
    publishBinary: '',
    bundle: '',
    socket: '',
    debug: false,
    info: false,
    version: false,
    help: false,
    action: '',
  };
  const target = flags as unknown as Record<string, string | boolean>;
  for (let i = 0; i < args.length; i++) {
    const match = /^--?([A-Za-z][A-Za-z-]*)(?:=(.*))?$/s.exec(args[i]!);
    if (!match) {
      flags.action = args[i]!;
      break;
    }
    const name = match[1]!;
    const flag = booleans[name];
    if (flag) {
      target[flag] = match[2] === undefined || /^(1|t|true)$/i.test(match[2]);
      continue;
    }
    const key = strings[name];
    if (!key && !ignored.has(name)) throw new Error(`flag provided but not defined: -${name}`);
    const value = match[2] ?? args[++i];
    if (value === undefined) throw new Error(`flag needs an argument: -${name}`);
    if (key) target[key] = value;
  }
  return flags;
}

export const usage = `Usage: gantry-shim [flags] start|delete
  -namespace string       namespace that owns the container
  -id string              id of the container
  -address string         gRPC address of the daemon
  -publish-binary string  accepted and not used: events go to TTRPC_ADDRESS
  -bundle string          path of the bundle, if it is not the working directory
  -socket string          directory for the shim's sockets (default /run/gantry/s)
  -debug                  log more
  -info                   read the runtime options from stdin, print the runtime's information (protobuf), exit
  -v, -version            print the version and exit
Example: gantry-shim -namespace default -id web -address /run/gantry/gantry.sock start
`;
