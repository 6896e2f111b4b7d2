import { type DescriptorKind, failedPrecondition } from '@gantry/api';
import type { Stdio } from '../oci-runtime.ts';
import { DirectOutput } from './direct-output.ts';
import { Input } from './input.ts';
import type { Output } from './output.ts';
import type { IoContext, PipeInodes, ProcessIo, StdioRequest } from './process-io.ts';
import { RelayedOutput } from './relayed-output.ts';
import { openTarget } from './targets.ts';

/** The output streams of a process by name; one for both if they go to one place, so that their order is kept. */
export type Outputs = Map<'stdout' | 'stderr', Output>;

/**
 * FIFOs, regular files and /dev/null as standard streams. *Direct* output is the client's FIFO itself, O_RDWR, so that nothing is
 * copied and the process is its own last reader; *relayed* output goes through an anonymous pipe and a pump.
 */
export class FifoIo implements ProcessIo {
  stdio: Stdio = [null, null, null];
  readonly #outputs: Outputs;
  #input: Input | undefined;

  private constructor(outputs: Outputs) {
    this.#outputs = outputs;
  }

  static open(request: StdioRequest, context: IoContext): FifoIo {
    const io = new FifoIo(new Map());
    try {
      if (request.stdin !== '') io.#input = Input.open(request.stdin, context);
      if (request.stdout !== '') io.#outputs.set('stdout', openOutput(request.stdout, context));
      if (request.stderr !== '' && request.stderr !== request.stdout)
        io.#outputs.set('stderr', openOutput(request.stderr, context));
      const stdout = io.#outputs.get('stdout');
      const stderr = request.stderr === request.stdout ? stdout : io.#outputs.get('stderr');
      io.stdio = [io.#input?.fd ?? null, stdout?.fd ?? null, stderr?.fd ?? null];
      return io;
    } catch (error) {
      io.close();
      throw error;
    }
  }

  /** For a process that another shim has started. */
  static adopt(outputs: Outputs, input: Input | undefined): FifoIo {
    const io = new FifoIo(outputs);
    io.#input = input;
    return io;
  }

  get pipes(): PipeInodes {
    return Object.fromEntries([...this.#outputs].flatMap(([name, { pipe }]) => (pipe ? [[name, pipe]] : [])));
  }

  async started(): Promise<void> {
    this.#input?.begin();
    for (const output of this.#outputs.values()) output.begin();
  }

  resize(): void {
    throw failedPrecondition('the process has no terminal');
  }

  closeStdin(): void {
    this.#input?.closeStdin();
  }

  exited(): void {
    this.#input?.close();
    for (const output of this.#outputs.values()) output.exited();
  }

  kept(): Map<DescriptorKind, number> {
    const kept = new Map<DescriptorKind, number>();
    this.#input?.addKept(kept);
    for (const [name, output] of this.#outputs) {
      const { from, to } = output.kept();
      if (from !== undefined) kept.set(name, from);
      if (to !== undefined) kept.set(`${name}-to`, to);
    }
    return kept;
  }

  async drain(): Promise<void> {
    await Promise.all([...this.#outputs.values()].map((output) => output.drain()));
  }

  close(): void {
    this.#input?.close();
    for (const output of this.#outputs.values()) output.close();
  }
}

function openOutput(name: string, context: IoContext): Output {
  const { fd, fifo } = openTarget(name);
  return fifo && context.direct ? DirectOutput.make(fd, context) : RelayedOutput.make(fd, context);
}
