/**
 * The shape of a command line program in the manner of containerd's `ctr`: commands in a tree, flags before arguments
 * (parsing stops at the first argument, so that a container's own flags are left alone), `-flag` and `--flag` alike.
 */
export type FlagKind = 'bool' | 'string' | 'strings' | 'int' | 'float' | 'duration';

export interface Flag {
  name: string;
  aliases?: readonly string[];
  kind: FlagKind;
  usage: string;
  default?: string | number | boolean;
  /** Environment variables asked in order when the flag is not given. */
  env?: readonly string[];
}

export interface Command {
  name: string;
  aliases?: readonly string[];
  usage: string;
  /** As `[flags] <ref>`. */
  argsUsage?: string;
  description?: string;
  /** One line that works, shown by --help. */
  example?: string;
  flags?: readonly Flag[];
  commands?: readonly Command[];
  /** Answers the exit code; 0 if nothing. */
  run?(invocation: Invocation): Promise<number> | Promise<void>;
  /** The whole command, when only its name is known at start: keeps `ctr version` from loading everything. */
  load?(): Promise<Command>;
}

/** A wrong use of the command line: shown with the way to help. */
export class UsageError extends Error {
  /** The command whose help tells more. */
  path: readonly string[] | undefined;
}

type Values = Map<string, string | number | boolean | string[]>;

/** What one command was called with. */
export class Invocation {
  readonly path: readonly string[];
  readonly args: readonly string[];
  readonly #values: readonly Values[];
  readonly #given: ReadonlySet<string>;

  constructor(path: readonly string[], args: readonly string[], values: readonly Values[], given: ReadonlySet<string>) {
    this.path = path;
    this.args = args;
    this.#values = values;
    this.#given = given;
  }

  /** Whether the user (or the environment) set the flag. */
  isSet(name: string): boolean {
    return this.#given.has(name);
  }

  #value(name: string): string | number | boolean | string[] | undefined {
    for (const values of this.#values) if (values.has(name)) return values.get(name);
    return undefined;
  }

  bool(name: string): boolean {
    return this.#value(name) === true;
  }

  string(name: string): string {
    return String(this.#value(name) ?? '');
  }

  strings(name: string): string[] {
    const value = this.#value(name);
    return Array.isArray(value) ? value : [];
  }

  /** Integers, floats, and durations in milliseconds. */
  number(name: string): number {
    return Number(this.#value(name) ?? 0);
  }

  /** The argument at an index. @throws UsageError naming what is missing. */
  argument(index: number, what: string): string {
    const value = this.args[index];
    if (value === undefined || value === '') throw new UsageError(`${what} must be provided`);
    return value;
  }
}

/** Finds the command, reads its flags and runs it. @throws UsageError */
export async function runCommand(
  root: Command,
  argv: readonly string[],
  print: (text: string) => void,
): Promise<number> {
  const path: string[] = [root.name];
  try {
    return await runPath(root, argv, print, path);
  } catch (error) {
    if (error instanceof UsageError) error.path = path;
    throw error;
  }
}

async function runPath(
  root: Command,
  argv: readonly string[],
  print: (text: string) => void,
  path: string[],
): Promise<number> {
  const chain: Values[] = [];
  const given = new Set<string>();
  let command = root;
  let rest = [...argv];
  for (;;) {
    if (command.load) command = await command.load();
    const parsed = parseFlags(command, rest);
    chain.unshift(parsed.values);
    for (const name of parsed.given) given.add(name);
    rest = parsed.rest;
    const next = rest[0];
    if (parsed.help || (next === 'help' && command.commands)) {
      print(helpText(path, command, command.commands ?? []));
      return 0;
    }
    if (!command.commands) break;
    if (next === undefined) {
      print(helpText(path, command, command.commands ?? []));
      return 0;
    }
    const found = command.commands.find((sub) => sub.name === next || sub.aliases?.includes(next));
    if (!found) throw new UsageError(`No help topic for '${next}'`);
    command = found;
    path.push(found.name);
    rest = rest.slice(1);
  }
  if (!command.run) throw new UsageError(`${path.join(' ')} cannot be run`);
  return (await command.run(new Invocation(path, rest, chain, given))) ?? 0;
}

function parseFlags(
  command: Command,
  argv: readonly string[],
): { values: Values; given: string[]; rest: string[]; help: boolean } {
  const flags = command.flags ?? [];
  const values: Values = new Map();
  const given: string[] = [];
  for (const flag of flags) {
    const fromEnvironment = flag.env
      ?.map((name) => process.env[name])
      .find((value) => value !== undefined && value !== '');
    if (fromEnvironment !== undefined) {
      setFlag(values, flag, fromEnvironment);
      given.push(flag.name);
    } else if (flag.default !== undefined)
      values.set(flag.name, flag.kind === 'duration' ? parseDuration(String(flag.default)) : flag.default);
  }
  let index = 0;
  let help = false;
  for (; index < argv.length; index++) {
    const word = argv[index]!;
    if (word === '--') {
      index++;
      break;
    }
    if (!word.startsWith('-') || word === '-') break;
    const bare = word.replace(/^--?/, '');
    const at = bare.indexOf('=');
    const name = at < 0 ? bare : bare.slice(0, at);
    if (name === 'help' || name === 'h') {
      help = true;
      continue;
    }
    const flag = flags.find((candidate) => candidate.name === name || candidate.aliases?.includes(name));
    if (!flag) throw new UsageError(`flag provided but not defined: -${name}`);
    let value = at < 0 ? undefined : bare.slice(at + 1);
    if (value === undefined) {
      if (flag.kind === 'bool') value = 'true';
      else {
        value = argv[++index];
        if (value === undefined) throw new UsageError(`flag needs an argument: -${name}`);
      }
    }
    setFlag(values, flag, value);
    given.push(flag.name);
  }
  return { values, given, rest: argv.slice(index), help };
}

function setFlag(values: Values, flag: Flag, text: string): void {
  const bad = (): UsageError => new UsageError(`invalid value "${text}" for flag -${flag.name}`);
  switch (flag.kind) {
    case 'bool': {
      if (!/^(true|false|1|0|t|f)$/i.test(text)) throw bad();
      values.set(flag.name, /^(true|1|t)$/i.test(text));
      return;
    }
    case 'string':
      values.set(flag.name, text);
      return;
    case 'strings': {
      const present = values.get(flag.name);
      values.set(flag.name, [...(Array.isArray(present) ? present : []), text]);
      return;
    }
    case 'int':
    case 'float': {
      const value = Number(text);
      if (text === '' || Number.isNaN(value) || (flag.kind === 'int' && !Number.isInteger(value))) throw bad();
      values.set(flag.name, value);
      return;
    }
    case 'duration':
      values.set(flag.name, parseDuration(text, bad));
      return;
  }
}

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Go's durations (`1h0m0.5s`) in milliseconds. */
export function parseDuration(
  text: string,
  bad: () => Error = () => new UsageError(`invalid duration "${text}"`),
): number {
  if (text === '0') return 0;
  const match = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/.exec(text);
  if (!match) throw bad();
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g))
    total += Number(number) * units[unit!]!;
  return match[1] === '-' ? -total : total;
}

/** The text of --help. */
export function helpText(path: readonly string[], command: Command, commands: readonly Command[]): string {
  const lines = ['NAME:', `   ${path.join(' ')} - ${command.usage}`, '', 'USAGE:'];
  const use = command.commands
    ? 'command [command options] [arguments...]'
    : (command.argsUsage ?? '[command options]');
  lines.push(`   ${path.join(' ')} ${use}`, '');
  if (command.description)
    lines.push('DESCRIPTION:', ...command.description.split('\n').map((line) => `   ${line}`), '');
  if (command.example) lines.push('EXAMPLE:', `   ${command.example}`, '');
  if (commands.length > 0) {
    const names = commands.map((sub) => [sub.name, ...(sub.aliases ?? [])].join(', '));
    const width = Math.max(...names.map((name) => name.length));
    lines.push('COMMANDS:', ...commands.map((sub, index) => `   ${names[index]!.padEnd(width)}  ${sub.usage}`), '');
  }
  const flags: Flag[] = [...(command.flags ?? []), { name: 'help', aliases: ['h'], kind: 'bool', usage: 'show help' }];
  const heads = flags.map((flag) => {
    const all = [flag.name, ...(flag.aliases ?? [])].map((name) => (name.length > 1 ? `--${name}` : `-${name}`));
    return all.map((name) => (flag.kind === 'bool' ? name : `${name} value`)).join(', ');
  });
  const width = Math.max(...heads.map((head) => head.length));
  lines.push('OPTIONS:');
  flags.forEach((flag, index) => {
    const value = flag.kind === 'string' ? `"${flag.default}"` : String(flag.default);
    const shown =
      flag.default === undefined || flag.default === '' || flag.default === false ? '' : ` (default: ${value})`;
    const variables = flag.env ? ` [${flag.env.map((name) => `$${name}`).join(', ')}]` : '';
    lines.push(`   ${heads[index]!.padEnd(width)}  ${flag.usage}${shown}${variables}`);
  });
  return `${lines.join('\n')}\n`;
}
