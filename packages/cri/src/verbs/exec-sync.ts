import { StatusError } from '@gantry/api';
import type { ExecSyncRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { execProcess, runningContainer } from '../run/exec-process.ts';

/** What is kept of each output; the rest is read and dropped. */
const maxOutput = 16 << 20;

/** Runs a command in a container and answers what it printed. @throws DeadlineExceeded when it takes longer than `timeout` seconds */
export async function execSync(
  cri: Cri,
  request: ExecSyncRequest,
  signal: AbortSignal,
): Promise<{ stdout: Uint8Array; stderr: Uint8Array; exitCode: number }> {
  const { containerId, cmd } = request;
  const container = runningContainer(cri, containerId);
  const stdout = new Kept();
  const stderr = new Kept();
  const ended = execProcess(cri, container, {
    command: cmd,
    terminal: false,
    stdout: (bytes) => stdout.add(bytes),
    stderr: (bytes) => stderr.add(bytes),
    signal,
    timeoutMs: Math.max(0, Number(request.timeout) * 1000),
    drainMs: cri.config.runtime.drain_exec_sync_io_timeout,
  });
  const exitCode = await ended.catch((error: unknown) => {
    throw StatusError.wrap(error, 'failed to exec in container');
  });
  return { stdout: stdout.bytes(), stderr: stderr.bytes(), exitCode };
}

class Kept {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  async add(bytes: Uint8Array): Promise<void> {
    const room = maxOutput - this.#length;
    if (room <= 0) return;
    const piece = bytes.subarray(0, room);
    this.#chunks.push(piece);
    this.#length += piece.length;
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}
