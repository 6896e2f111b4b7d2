import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** What a fake plugin does when it is called with a command. */
export interface FakeAnswer {
  print?: unknown;
  /** Printed as it is, instead. */
  text?: string;
  errors?: string;
  /** What the plugin before it gave is printed. */
  echo?: boolean;
  exit?: number;
  /** It kills itself. */
  dies?: boolean;
  /** It, and a program that it started, never end by themselves. */
  hangs?: boolean;
}

/** One call, as the plugin saw it. */
export interface FakeCall {
  plugin: string;
  command: string;
  id: string;
  netns: string;
  interfaceName: string;
  args: string;
  path: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into what they gave
  input: any;
}

const program = (node: string, log: string, versions: string) => `#!${node}
const fs = require('node:fs');
const { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: netns, CNI_IFNAME: interfaceName, CNI_ARGS: args, CNI_PATH: path } = process.env;
const input = JSON.parse(fs.readFileSync(0, 'utf8'));
const plugin = require('node:path').basename(process.argv[1]);
fs.appendFileSync(${JSON.stringify(log)}, JSON.stringify({ plugin, command, id, netns, interfaceName, args, path, input }) + '\\n');
const usual = {
  ADD: { print: { cniVersion: input.cniVersion, ...(input.result ?? {}) } },
  VERSION: { print: { cniVersion: '1.0.0', supportedVersions: ${versions} } },
};
const answer = input.fake?.[command] ?? usual[command] ?? {};
if (answer.errors) fs.writeSync(2, answer.errors);
if (answer.echo) fs.writeSync(1, JSON.stringify(input.prevResult));
else if (answer.text !== undefined) fs.writeSync(1, answer.text);
else if (answer.print !== undefined) fs.writeSync(1, JSON.stringify(answer.print));
if (answer.dies) process.kill(process.pid, 'SIGKILL');
if (answer.hangs) {
  require('node:child_process').spawn('sleep', ['600'], { stdio: 'inherit' });
  setInterval(() => {}, 1000);
} else process.exit(answer.exit ?? 0);
`;

/** Plugins that do as their configuration says (`fake`), and write down how they were called. */
export class FakePlugins {
  readonly directory: string;
  readonly #log: string;

  constructor(directory: string, names: readonly string[], versions = ['0.4.0', '1.0.0']) {
    this.directory = path.join(directory, 'bin');
    this.#log = path.join(directory, 'calls.log');
    mkdirSync(this.directory, { recursive: true });
    const source = program(process.execPath, this.#log, JSON.stringify(versions));
    for (const name of names) writeFileSync(path.join(this.directory, name), source, { mode: 0o755 });
  }

  /** All calls since the last look. */
  calls(): FakeCall[] {
    const text = existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : '';
    writeFileSync(this.#log, '');
    const lines = text.split('\n').filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line) as FakeCall);
  }

  /** In short: `ADD fake`. */
  commands(): string[] {
    return this.calls().map(({ command, plugin }) => `${command} ${plugin}`);
  }
}
