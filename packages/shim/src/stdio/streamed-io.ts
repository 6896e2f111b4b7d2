import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { DescriptorKind } from '@gantry/api';
import { ByteSender, receiveBytes } from '@gantry/rpc/byte-stream.ts';
import { close, hasErrno, mkfifo, O, openFifoReader, openFifoWriter } from '@gantry/sys';
import { log } from '../log.ts';
import type { Stdio } from '../oci-runtime.ts';
import { namedStreams } from './named-streams.ts';
import type { PipeInodes, ProcessIo, StdioRequest, TerminalSize } from './process-io.ts';

const streamUrl = /^(?:ttrpc|grpc)\+[a-z]+:\/\//;

/** Whether a process's standard streams are streams of the Streaming API, `ttrpc+unix://…?streaming_id=…`, as CRI's `io_type = "streaming"` has them. */
export function isStreamed({ stdin, stdout, stderr }: StdioRequest): boolean {
  return [stdin, stdout, stderr].some((name) => streamUrl.test(name));
}

type Name = 'stdin' | 'stdout' | 'stderr';

/** FIFOs of our own in place of streams, and what carries bytes between the two. */
class Relays {
  /** What the process is connected to. */
  readonly fifos: StdioRequest;
  readonly list: Relay[] = [];
  readonly directory: string;

  constructor(request: StdioRequest, { namespace, socketDir }: { namespace: string; socketDir: string }) {
    const name = createHash('sha256').update(`${namespace}/${request.stdout}/${request.stdin}`).digest('hex');
    this.directory = path.join(socketDir, `streams-${name.slice(0, 16)}`);
    this.fifos = { ...request };
    try {
      mkdirSync(this.directory, { recursive: true, mode: 0o700 });
      for (const kind of ['stdin', 'stdout', 'stderr'] as const) {
        if (!streamUrl.test(request[kind])) continue;
        this.fifos[kind] = path.join(this.directory, kind);
        makeFifo(this.fifos[kind]);
        this.list.push(new Relay(kind, this.fifos[kind], namespace, idOf(request[kind])));
      }
    } catch (error) {
      this.giveUp();
      throw error;
    }
  }

  giveUp(): void {
    for (const relay of this.list) relay.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/**
 * Standard streams that go to their client as messages. In between are FIFOs of our own, so that a process's output waits while its client is
 * away; one that opens the stream again goes on with it.
 */
export class StreamedIo implements ProcessIo {
  readonly #inner: ProcessIo;
  readonly #relays: Relays;

  private constructor(inner: ProcessIo, relays: Relays) {
    this.#inner = inner;
    this.#relays = relays;
  }

  /** @param connect connects the process to the FIFOs that it is given */
  static async open(
    request: StdioRequest,
    context: { namespace: string; socketDir: string },
    connect: (fifos: StdioRequest) => Promise<ProcessIo>,
  ): Promise<StreamedIo> {
    const relays = new Relays(request, context);
    try {
      return new StreamedIo(await connect(relays.fifos), relays);
    } catch (error) {
      relays.giveUp();
      throw error;
    }
  }

  /** For a process that another shim has started. */
  static adopt(
    request: StdioRequest,
    context: { namespace: string; socketDir: string; running: boolean },
    connect: (fifos: StdioRequest) => ProcessIo,
  ): StreamedIo {
    const relays = new Relays(request, context);
    const io = new StreamedIo(connect(relays.fifos), relays);
    if (!context.running) for (const relay of relays.list) relay.exited();
    return io;
  }

  get stdio(): Stdio {
    return this.#inner.stdio;
  }

  get consoleSocket(): string {
    return this.#inner.consoleSocket ?? '';
  }

  get pipes(): PipeInodes {
    return this.#inner.pipes;
  }

  started(): Promise<void> {
    return this.#inner.started();
  }

  resize(size: TerminalSize): void {
    this.#inner.resize(size);
  }

  closeStdin(): void {
    for (const relay of this.#relays.list) if (relay.kind === 'stdin') relay.close();
    this.#inner.closeStdin();
  }

  exited(): void {
    this.#inner.exited();
    for (const relay of this.#relays.list) relay.exited();
  }

  kept(): Map<DescriptorKind, number> {
    return this.#inner.kept();
  }

  async drain(): Promise<void> {
    await this.#inner.drain();
  }

  close(): void {
    this.#inner.close();
    for (const relay of this.#relays.list) relay.finish();
    rmSync(this.#relays.directory, { recursive: true, force: true });
  }
}

function idOf(url: string): string {
  return new URL(url).searchParams.get('streaming_id') ?? '';
}

function makeFifo(file: string): void {
  try {
    mkfifo(file, 0o600);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
  }
}

/** Between one FIFO and the stream of one name. */
class Relay {
  readonly kind: Name;
  readonly #socket: net.Socket;
  #holder: number;
  readonly #abort = new AbortController();

  constructor(kind: Name, fifo: string, namespace: string, id: string) {
    this.kind = kind;
    const input = kind === 'stdin';
    const { fd, holder } = (input ? openFifoWriter : openFifoReader)(fifo, { flags: O.NONBLOCK, hold: true });
    this.#holder = holder;
    this.#socket = new net.Socket({ fd, readable: !input, writable: input });
    this.#socket.on('error', () => undefined);
    const work = input ? this.#feed(namespace, id) : this.#send(namespace, id);
    void work.catch((error) => {
      if (!this.#abort.signal.aborted) log.warn('a stream of a process ends', { id, error });
    });
  }

  async #feed(namespace: string, id: string): Promise<void> {
    const stream = await namedStreams.wait(namespace, id, this.#abort.signal);
    for await (const bytes of receiveBytes(stream, this.#abort.signal)) {
      if (!this.#socket.write(bytes))
        await new Promise<void>((resolve) => this.#socket.once('drain', resolve).once('close', () => resolve()));
    }
  }

  async #send(namespace: string, id: string): Promise<void> {
    let sender: ByteSender | undefined;
    const { signal } = this.#abort;
    const open = async (): Promise<ByteSender> => {
      const stream = await namedStreams.wait(namespace, id, signal);
      const made = new ByteSender(stream, signal);
      // What is sent to a client that has gone is dropped without a word.
      void stream.closed.then(() => {
        if (sender === made) sender = undefined;
      });
      return made;
    };
    for await (const chunk of this.#socket as AsyncIterable<Buffer>) {
      for (let sent = false; !sent; ) {
        sender ??= await open();
        const to: ByteSender = sender;
        try {
          await to.write(chunk);
          sent = true;
        } catch (error) {
          if (signal.aborted) throw error;
          // The client has gone, and nobody knows what of this piece it took: the next one gets all of it.
          to.close();
          sender = undefined;
        }
      }
    }
    (sender ?? (await open())).close();
  }

  /** The process has ended: so does what it has written, once it has been sent. */
  exited(): void {
    if (this.#holder >= 0) close(this.#holder);
    this.#holder = -1;
    if (this.kind === 'stdin') this.close();
  }

  /** What a client that is there has not taken yet goes on in the background. */
  finish(): void {
    this.exited();
    if (this.kind !== 'stdin') setTimeout(() => this.close(), finishMs).unref();
  }

  close(): void {
    if (this.#holder >= 0) close(this.#holder);
    this.#holder = -1;
    this.#abort.abort();
    this.#socket.destroy();
  }
}

const finishMs = 10_000;
