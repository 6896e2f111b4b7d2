// The named pipes through which a container's input and output pass between client and shim.
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

/** Which of the three a process gets, and how: `pipe` gives a stream here, `null` nothing, else a path or URI for the shim. */
export interface StdioOptions {
  stdin?: 'pipe' | 'null' | (string & {});
  stdout?: 'pipe' | 'null' | (string & {});
  /** Not used with a terminal, which has one output only. */
  stderr?: 'pipe' | 'null' | (string & {});
  /** Where the pipes are made; the daemon must see it under the same path. Default: `/run/containerd/fifo` for root, else the temporary directory. */
  directory?: string;
}

/** What goes into a request to create a process. */
export interface StdioPaths {
  stdin: string;
  stdout: string;
  stderr: string;
}

/**
 * The ends of a process's stdio that are here. No opening waits and no end keeps the other open: pipes are opened
 * O_RDWR|O_NONBLOCK, which never blocks, and re-opened for one direction.
 */
export class ProcessIo {
  readonly paths: StdioPaths;
  readonly terminal: boolean;
  stdin: net.Socket | undefined;
  stdout: net.Socket | undefined;
  stderr: net.Socket | undefined;
  /** Called once when stdin was ended here and all of it is written. */
  onStdinEnd: (() => void) | undefined;
  readonly #directory: string | undefined;
  #keeper: number | undefined;

  private constructor(paths: StdioPaths, terminal: boolean, directory?: string) {
    this.paths = paths;
    this.terminal = terminal;
    this.#directory = directory;
  }

  /** Makes the pipes of a new process. */
  static async create(id: string, options: StdioOptions = {}, terminal = false): Promise<ProcessIo> {
    const wanted: StdioOptions = terminal ? { ...options, stderr: 'null' } : options;
    const names = ['stdin', 'stdout', 'stderr'] as const;
    const piped = names.filter((name) => wanted[name] === 'pipe');
    // containerd's shims take both outputs or none, so one that is not wanted beside one that is goes to /dev/null.
    const lonely = !terminal && [wanted.stdout, wanted.stderr].some((output) => output && output !== 'null');
    const given = (name: (typeof names)[number]) =>
      wanted[name] === 'null' || !wanted[name] ? (lonely && name !== 'stdin' ? '/dev/null' : '') : wanted[name];
    if (piped.length === 0)
      return new ProcessIo({ stdin: given('stdin'), stdout: given('stdout'), stderr: given('stderr') }, terminal);
    // Loaded here, so that a client that makes no pipes needs no native code.
    const { mkfifo } = await import('@gantry/sys/files.ts');
    const top = options.directory ?? (process.getuid!() === 0 ? '/run/containerd/fifo' : os.tmpdir());
    mkdirSync(top, { recursive: true, mode: 0o700 });
    const directory = mkdtempSync(path.join(top, 'client-'));
    const file = (name: string) => path.join(directory, `${id.replaceAll('/', '_')}-${name}`);
    const at = (name: (typeof names)[number]) => (piped.includes(name) ? file(name) : given(name));
    const io = new ProcessIo({ stdin: at('stdin'), stdout: at('stdout'), stderr: at('stderr') }, terminal, directory);
    try {
      for (const name of piped) mkfifo(file(name), 0o600);
      if (piped.includes('stdin')) io.#openStdin(file('stdin'));
      for (const name of ['stdout', 'stderr'] as const) if (piped.includes(name)) io[name] = openReader(file(name));
    } catch (reason) {
      io.destroy();
      throw reason;
    }
    return io;
  }

  /** Opens the pipes of a process that another client made. What is not a pipe is left out. */
  static attach(paths: StdioPaths, terminal: boolean): ProcessIo {
    const io = new ProcessIo(paths, terminal);
    try {
      if (isFifo(paths.stdin)) io.#openStdin(paths.stdin);
      if (isFifo(paths.stdout)) io.stdout = openReader(paths.stdout);
      if (isFifo(paths.stderr) && !terminal) io.stderr = openReader(paths.stderr);
    } catch (reason) {
      io.destroy();
      throw reason;
    }
    return io;
  }

  /** Opens pipes at given places, making those that are not there; they stay. */
  static async at(paths: StdioPaths, terminal: boolean): Promise<ProcessIo> {
    const { mkfifo } = await import('@gantry/sys/files.ts');
    for (const file of [paths.stdin, paths.stdout, terminal ? '' : paths.stderr])
      if (file.startsWith('/') && !statSync(file, { throwIfNoEntry: false })) mkfifo(file, 0o700);
    return ProcessIo.attach(paths, terminal);
  }

  /** The process is started, so the shim holds its ends now. */
  started(): void {
    if (this.#keeper !== undefined) closeSync(this.#keeper);
    this.#keeper = undefined;
  }

  /** Resolves when both outputs have ended and were read. */
  async drained(): Promise<void> {
    const open = [this.stdout, this.stderr].filter((stream) => stream && !stream.closed);
    await Promise.all(open.map((stream) => new Promise((resolve) => stream!.once('close', resolve))));
  }

  /** Removes the pipes' names; what is in them can still be read. */
  remove(): void {
    this.started();
    if (this.#directory) rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Drops everything. */
  destroy(): void {
    this.onStdinEnd = undefined;
    for (const stream of [this.stdin, this.stdout, this.stderr]) stream?.destroy();
    this.remove();
  }

  #openStdin(file: string): void {
    this.#keeper = openSync(file, constants.O_RDWR | constants.O_NONBLOCK);
    // Held until the shim reads, or a write before that would find nobody and fail.
    const fd = openSync(`/proc/self/fd/${this.#keeper}`, constants.O_WRONLY | constants.O_NONBLOCK);
    const stdin = new net.Socket({ fd, readable: false, writable: true });
    stdin.on('error', (error: NodeJS.ErrnoException) => {
      // The process went without reading all of it: the usual end of an input nobody waits for.
      if (error.code !== 'EPIPE') stdin.emit('warning', error);
    });
    stdin.once('finish', () => this.onStdinEnd?.());
    this.stdin = stdin;
  }
}

function openReader(file: string): net.Socket {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  return new net.Socket({ fd, readable: true, writable: false });
}

function isFifo(file: string): boolean {
  return file.startsWith('/') && statSync(file, { throwIfNoEntry: false })?.isFIFO() === true;
}
