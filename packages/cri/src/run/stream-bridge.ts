import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Any } from '@bufbuild/protobuf/wkt';
import { failedPrecondition, packAny, StatusError, unavailable } from '@gantry/api';
import { StreamInitSchema, Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { createClient, grpcTransport, MessageQueue, type Transport, ttrpcTransport } from '@gantry/rpc';
import { ByteSender, receiveBytes } from '@gantry/rpc/byte-stream.ts';
import type { MessageStream } from '@gantry/rpc/message-stream.ts';
import { close, O, openFifoReader, openFifoWriter } from '@gantry/sys';
import { type Cri, criContext } from '../cri.ts';
import { kubernetesNamespace } from '../labels.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import type { Fifos } from './container-io.ts';

const againMs = 500;

/**
 * Where the streams of a pod's processes are opened, if its runtime handler has `io_type = "streaming"`: the address of its sandbox. ''
 * for FIFOs.
 * @throws StatusError FailedPrecondition if the sandbox has no address, which those of `podsandbox` have not
 */
export async function streamAddress(cri: Cri, sandbox: PodSandbox): Promise<string> {
  const handler = cri.handlers.forPod(sandbox.metadata.config, sandbox.metadata.runtimeHandler);
  if (handler.io_type !== 'streaming') return '';
  const status = await cri.controllers.get(sandbox.sandboxer)?.status(criContext(), sandbox.id);
  if (!status?.address)
    throw failedPrecondition('failed to create container io: address can not be empty for io stream');
  return status.address;
}

/** What the runtime is told of the streams of a process. @param id the container's, or the exec's */
export function streamUrls(address: string, id: string, fifos: Fifos): Fifos {
  const url = (kind: keyof Fifos) => (fifos[kind] === '' ? '' : `${address}?streaming_id=${id}-${kind}`);
  return { stdin: url('stdin'), stdout: url('stdout'), stderr: url('stderr') };
}

export function isStreamUrl(name: string): boolean {
  return /^(?:ttrpc|grpc)\+[a-z]+:\/\//.test(name);
}

/**
 * Joins the streams of a process to FIFOs, so that everything else is as with FIFOs. A stream that breaks, because the shim was killed, is
 * opened again until the process has ended.
 */
export class StreamBridge {
  readonly #cri: Cri;
  readonly #abort = new AbortController();
  readonly #sockets: net.Socket[] = [];
  readonly #holders: number[] = [];
  #exited = false;

  constructor(cri: Cri) {
    this.#cri = cri;
  }

  /** Opens all of them. @throws StatusError if they cannot be */
  async open(urls: Fifos, fifos: Fifos): Promise<void> {
    try {
      for (const kind of ['stdin', 'stdout', 'stderr'] as const) {
        if (urls[kind] === '' || fifos[kind] === '') continue;
        await (kind === 'stdin' ? this.#send(urls.stdin, fifos.stdin) : this.#receive(urls[kind], fifos[kind]));
      }
    } catch (error) {
      this.close();
      throw StatusError.wrap(error, 'failed to create container io');
    }
  }

  /** The process has ended: a stream that breaks now is not opened again. */
  exited(): void {
    this.#exited = true;
  }

  close(): void {
    this.exited();
    this.#abort.abort();
    for (const socket of this.#sockets) socket.destroy();
    for (const fd of this.#holders.splice(0)) close(fd);
  }

  /** A stream of which `use` is made, and another one if it breaks. Resolves once the first is open. */
  async #keep(url: string, use: (stream: MessageStream) => Promise<void>, done: () => void): Promise<void> {
    let opened = await openStream(url, this.#abort.signal);
    void (async () => {
      for (;;) {
        try {
          await use(opened);
          return;
        } catch (error) {
          if (this.#abort.signal.aborted || this.#exited) return;
          this.#cri.log.debug('a stream of a process broke', { url, error });
        }
        opened = await this.#again(url);
      }
    })()
      .catch((error) => this.#cri.log.debug('a stream of a process is over', { url, error }))
      .finally(done);
  }

  async #again(url: string): Promise<MessageStream> {
    for (;;) {
      await sleep(againMs, undefined, { ref: false, signal: this.#abort.signal });
      try {
        return await openStream(url, this.#abort.signal);
      } catch (error) {
        if (this.#exited) throw error;
      }
    }
  }

  async #receive(url: string, fifo: string): Promise<void> {
    const { fd } = openFifoWriter(fifo, { flags: O.NONBLOCK });
    const socket = new net.Socket({ fd, readable: false, writable: true });
    socket.on('error', () => undefined);
    this.#sockets.push(socket);
    const use = async (stream: MessageStream): Promise<void> => {
      for await (const bytes of receiveBytes(stream, this.#abort.signal)) {
        if (socket.write(bytes)) continue;
        await new Promise<void>((resolve) => socket.once('drain', resolve).once('close', () => resolve()));
      }
    };
    await this.#keep(url, use, () => void socket.end());
  }

  async #send(url: string, fifo: string): Promise<void> {
    const { fd, holder } = openFifoReader(fifo, { flags: O.NONBLOCK, hold: true });
    this.#holders.push(holder);
    const socket = new net.Socket({ fd, readable: true, writable: false });
    socket.on('error', () => undefined);
    this.#sockets.push(socket);
    const input = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    let chunk: Buffer | undefined;
    const use = async (stream: MessageStream): Promise<void> => {
      const sender = new ByteSender(stream, this.#abort.signal);
      for (;;) {
        if (!chunk) {
          const next = await input.next();
          if (next.done) break;
          chunk = next.value;
        }
        await sender.write(chunk);
        chunk = undefined;
      }
      sender.close();
    };
    await this.#keep(url, use, () => undefined);
  }
}

/** Opens the stream that a URL names, on a connection of its own. */
async function openStream(url: string, signal: AbortSignal): Promise<MessageStream> {
  const { transport, id } = dial(url);
  const out = new MessageQueue<Any>();
  const closed = Promise.withResolvers<void>();
  const end = (): void => {
    out.end();
    closed.resolve();
    void transport.close();
  };
  try {
    out.push(packAny(StreamInitSchema, { id }));
    const call = createClient(Streaming, transport).stream(out, { namespace: kubernetesNamespace, signal });
    const incoming = call[Symbol.asyncIterator]();
    if ((await incoming.next()).done) throw unavailable(`stream "${id}" was closed at once`);
    return {
      send: (message) => out.push(message),
      async receive() {
        const next = await incoming.next();
        return next.done ? undefined : next.value;
      },
      close: end,
      closed: closed.promise,
    };
  } catch (error) {
    end();
    throw error;
  }
}

function dial(url: string): { transport: Transport; id: string } {
  const [, protocol, scheme, target, id] = /^(ttrpc|grpc)\+([a-z]+):\/\/([^?]*)\?streaming_id=(.+)$/.exec(url) ?? [];
  if (protocol === undefined || target === undefined || id === undefined || scheme !== 'unix')
    throw failedPrecondition(`streams are opened over ttrpc+unix and grpc+unix only: ${url}`);
  const address = `unix://${target}`;
  return { transport: protocol === 'grpc' ? grpcTransport(address) : ttrpcTransport(address), id };
}
