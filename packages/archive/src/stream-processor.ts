/**
 * A stream processor at work: a program that is given a layer's bytes and answers with others (decrypted, converted). Both flow at
 * once, so neither side can wait for the other for ever. Runs in a worker.
 */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Child, close, type Exit, kill, pipe2, SysError, spawn, waitExit } from '@gantry/sys';

/** One program to send a layer through. */
export interface ProcessorStep {
  /** Its id in the configuration, for messages. */
  id: string;
  file: string;
  args: string[];
  /** `NAME=value`, over the daemon's own environment. */
  env: string[];
  /** What it is given; it reads it in STREAM_PROCESSOR_MEDIATYPE. */
  mediaType: string;
  /** It reads this from descriptor 3, which it has only then. */
  payload?: Uint8Array;
}

/** Bytes of a program's standard error that are told when it fails: the last ones. */
const TOLD = 16 << 10;
/** Milliseconds a program may still run after it has closed its output. */
const GRACE = 10_000;

/**
 * What the program makes of `source`. When the reader stops, or the signal comes, it is killed with all of its process group.
 * @throws Error with its exit status and standard error, if it fails; the source's own error, if that fails
 */
export async function* runProcessor(
  step: ProcessorStep,
  source: AsyncIterable<Buffer>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  signal.throwIfAborted();
  const running = start(step);
  const { child, stdin, stdout, stderr } = running;
  const end = () => {
    try {
      kill(-child.pid, 'SIGKILL');
    } catch {
      // Nobody is left in its group.
    }
    for (const pipe of running.pipes) pipe.destroy();
  };
  signal.addEventListener('abort', end, { once: true });
  const exited = waitExit(child);
  const told = tail(stderr);
  let broken: { error: unknown } | undefined;
  // Its last piece may be still to come when the source has failed, but is worth nothing.
  feed(stdin, source).catch((error: unknown) => {
    broken = { error };
    end();
  });
  try {
    for await (const chunk of stdout) yield chunk as Buffer;
    const exit = await Promise.race([exited, sleep(GRACE, undefined, { ref: false, signal })]);
    if (!exit) throw failure(step, 'it still runs though it has closed its output', '');
    const reason = reasonOf(exit);
    if (reason !== undefined) throw failure(step, reason, await told);
  } catch (error) {
    signal.throwIfAborted();
    throw broken ? broken.error : error;
  } finally {
    signal.removeEventListener('abort', end);
    end();
    await exited;
  }
  if (broken) throw broken.error;
}

const failure = ({ id, file }: ProcessorStep, reason: string, told: string) =>
  new Error(`stream processor ${id} (${file}): ${reason}${told === '' ? '' : `: ${told}`}`);

function reasonOf({ code, signal }: Exit): string | undefined {
  if (signal !== undefined) return `killed by signal ${signal}`;
  return code === 0 ? undefined : `exit status ${code}`;
}

/** Never ahead by more than a chunk: the source may write over the one before. */
async function feed(stdin: net.Socket, source: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of source) {
    if (stdin.destroyed) return;
    const gone = await new Promise<boolean>((resolve) => {
      stdin.write(chunk, (error) => resolve(error !== undefined && error !== null));
    });
    // A program need not read all that it is given; how it ends tells whether that was right.
    if (gone) return;
  }
  stdin.end();
}

async function tail(stderr: net.Socket): Promise<string> {
  let kept: Buffer = Buffer.alloc(0);
  stderr.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-TOLD);
  });
  await new Promise<void>((resolve) => {
    stderr.on('close', () => resolve());
  });
  return kept.toString('utf8').trim();
}

interface Running {
  child: Child;
  stdin: net.Socket;
  stdout: net.Socket;
  stderr: net.Socket;
  pipes: net.Socket[];
}

function start({ id, file, args, env, mediaType, payload }: ProcessorStep): Running {
  const ours: number[] = [];
  const theirs: number[] = [];
  const pair = (mine: 0 | 1): void => {
    const ends = pipe2();
    ours.push(ends[mine]);
    theirs.push(ends[1 - mine]!);
  };
  const variables = env.map((entry) => {
    const at = entry.indexOf('=');
    return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)];
  });
  try {
    for (const mine of [1, 0, 0, ...(payload ? [1] : [])]) pair(mine as 0 | 1);
    const [input = null, output = null, errors = null, ...extraFds] = theirs;
    const child = spawn({
      file,
      args,
      env: { ...process.env, ...Object.fromEntries(variables), STREAM_PROCESSOR_MEDIATYPE: mediaType },
      stdio: [input, output, errors],
      extraFds,
      setsid: true,
    });
    const pipes = ours.splice(0).map((fd, index) => {
      const writable = index === 0 || index === 3;
      const pipe = new net.Socket({ fd, readable: !writable, writable });
      // What becomes of the program is told by its exit; a pipe only follows it.
      pipe.on('error', () => undefined);
      return pipe;
    });
    const [stdin, stdout, stderr, extra] = pipes as [net.Socket, net.Socket, net.Socket, net.Socket?];
    if (payload) extra?.end(payload);
    return { child, stdin, stdout, stderr, pipes };
  } catch (error) {
    for (const fd of ours) close(fd);
    if (!(error instanceof SysError)) throw error;
    throw new Error(`failed to get stream processor for ${mediaType}: ${id}: ${error.message}`, { cause: error });
  } finally {
    for (const fd of theirs) close(fd);
  }
}
