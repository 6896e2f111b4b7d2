import { invalidArgument } from '@gantry/api';
import type { AttachRequest, ExecRequest, PortForwardRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { runningContainer } from '../run/exec-process.ts';

/** URLs at which clients exec, attach and forward ports. */

export function execUrl(cri: Cri, request: ExecRequest): { url: string } {
  const { cmd, tty, stdin, stdout, stderr } = request;
  checkStreams(request);
  const { id } = runningContainer(cri, request.containerId);
  return { url: cri.streaming.execUrl({ containerId: id, command: cmd, terminal: tty, stdin, stdout, stderr }) };
}

export function attachUrl(cri: Cri, request: AttachRequest): { url: string } {
  const { tty, stdin, stdout, stderr } = request;
  checkStreams(request);
  const { id } = runningContainer(cri, request.containerId);
  return { url: cri.streaming.attachUrl({ containerId: id, terminal: tty, stdin, stdout, stderr }) };
}

export function portForwardUrl(cri: Cri, { podSandboxId, port }: PortForwardRequest): { url: string } {
  const sandbox = cri.sandboxes.get(podSandboxId);
  if (sandbox.status.state !== 'ready') throw invalidArgument('sandbox container is not running');
  return { url: cri.streaming.portForwardUrl({ sandboxId: sandbox.id, ports: port }) };
}

function checkStreams({ tty, stdin, stdout, stderr }: Pick<ExecRequest, 'tty' | 'stdin' | 'stdout' | 'stderr'>): void {
  if (!stdin && !stdout && !stderr) throw invalidArgument('one of stdin, stdout, or stderr must be set');
  if (tty && stderr) throw invalidArgument('tty and stderr cannot both be true');
}
