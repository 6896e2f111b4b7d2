import { fstatSync, readdirSync } from 'node:fs';
import { type DescriptorKind, failedPrecondition } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat, reopen } from '@gantry/sys';
import { log } from '../log.ts';
import { DirectOutput } from './direct-output.ts';
import { FifoIo, type Outputs } from './fifo-io.ts';
import { Input } from './input.ts';
import { isLogger } from './logger-io.ts';
import type { IoContext, PipeInodes, ProcessIo, StdioRequest } from './process-io.ts';
import { RelayedOutput } from './relayed-output.ts';
import { openTarget, openTargetAgain } from './targets.ts';
import { TerminalIo } from './terminal-io.ts';

/** What is known of a process that an earlier shim had started. */
export interface AdoptedStreams {
  pid: number;
  running: boolean;
  stdio: StdioRequest;
  /** Whether it has the client's FIFOs themselves. */
  direct: boolean;
  stdinClosed: boolean;
  pipes: PipeInodes;
  /** What the daemon had kept for that shim: closed or owned by the streams from here on. The pidfd is not looked at. */
  kept: Map<DescriptorKind, number>;
}

/**
 * Connects the streams of such a process again: with what the daemon kept, and with what is found through the process itself and the
 * client's FIFOs. A terminal that nobody kept is lost, and with it the process's input and output.
 */
export function adoptProcessIo(streams: AdoptedStreams, context: Pick<IoContext, 'socketDir' | 'changed'>): ProcessIo {
  const { stdio, stdinClosed, running } = streams;
  const kept = new Map(streams.kept);
  kept.delete('pidfd');
  if (stdio.terminal && kept.has('terminal')) {
    const terminal = TerminalIo.adopt(stdio, context, kept, stdinClosed);
    if (!running) terminal.exited();
    return terminal;
  }
  const outputs: Outputs = new Map();
  if (!stdio.terminal && !isLogger(stdio.stdout)) {
    addOutput('stdout', streams, context, kept, outputs);
    if (stdio.stderr !== stdio.stdout) addOutput('stderr', streams, context, kept, outputs);
  }
  const input = running && !stdio.terminal ? adoptInput(stdio.stdin, stdinClosed, kept, context.changed) : undefined;
  for (const fd of kept.values()) close(fd);
  const io = FifoIo.adopt(outputs, input);
  if (!running) io.exited();
  return stdio.terminal ? withoutTerminal(io) : io;
}

function withoutTerminal(io: FifoIo): ProcessIo {
  io.resize = () => {
    throw failedPrecondition('the terminal was lost with the shim that held it');
  };
  return io;
}

/** What it uses of `kept` it takes out, as `addOutput` does. */
function adoptInput(
  name: string,
  stdinClosed: boolean,
  kept: Map<DescriptorKind, number>,
  changed: () => void,
): Input | undefined {
  const holder = kept.get('stdin') ?? (stdinClosed ? -1 : holdAgain(name));
  const pipe = kept.get('stdin-to') ?? -1;
  kept.delete('stdin');
  kept.delete('stdin-to');
  return holder >= 0 || pipe >= 0 ? Input.adopt(name, holder, pipe, changed) : undefined;
}

function addOutput(
  name: 'stdout' | 'stderr',
  streams: AdoptedStreams,
  context: Pick<IoContext, 'changed'>,
  kept: Map<DescriptorKind, number>,
  outputs: Outputs,
): void {
  const { pid, stdio, running, direct, pipes } = streams;
  const target = stdio[name];
  const given = kept.get(name);
  kept.delete(name);
  try {
    if (direct && !pipes[name]) {
      const fifo = given === undefined && running ? holdAgain(target) : -1;
      if (given !== undefined) outputs.set(name, DirectOutput.adoptEnded(given));
      else if (fifo >= 0) outputs.set(name, DirectOutput.adopt(fifo, context.changed));
      return;
    }
    const from = given ?? (running ? findPipe(pid, pipes[name]) : undefined);
    const to = kept.get(`${name}-to`);
    kept.delete(`${name}-to`);
    if (from !== undefined)
      outputs.set(name, RelayedOutput.adopt(from, to ?? openTargetAgain(target).fd, context.changed));
    // All of it is in the client's FIFO, for whoever will read that.
    else if (to !== undefined) outputs.set(name, DirectOutput.adoptEnded(to));
  } catch (error) {
    log.warn('output of an adopted process is lost', { pid, name, error });
  }
}

/** A FIFO opened for both, so that whoever uses it sees no end; -1 if it is gone or none. */
function holdAgain(name: string): number {
  if (name === '') return -1;
  try {
    const { fd, fifo } = openTarget(name);
    if (fifo) return fd;
    close(fd);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) log.warn('a FIFO cannot be held again', { name, error });
  }
  return -1;
}

/** Opens the reading end of a pipe through a process that has it. Never opens anything else: a process may put there what it likes. */
function findPipe(pid: number, inode: string | undefined): number | undefined {
  if (inode === undefined) return undefined;
  for (const name of descriptorsOf(pid)) {
    try {
      const handle = openat(AT_FDCWD, `/proc/${pid}/fd/${name}`, O.PATH);
      try {
        const stat = fstatSync(handle, { bigint: true });
        if (stat.isFIFO() && String(stat.ino) === inode) return reopen(handle, O.RDONLY | O.NONBLOCK);
      } finally {
        close(handle);
      }
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ESRCH')) throw error;
    }
  }
  return undefined;
}

/** Standard output and error first. */
function descriptorsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).sort((a, b) => Number(a) - Number(b));
  } catch {
    return [];
  }
}
