// The thread that writes container logs: one for all containers.
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { StatusError } from '@gantry/api';
import type { LogCall, LogNews, LogReport, LogRequest } from './log-messages.ts';
import { LoggedContainer } from './logged-container.ts';
import { LogBuffers } from './spooled-log.ts';
import { WaitLoop } from './wait-loop.ts';

const port = parentPort!;
const { bell, counts } = workerData as { bell: number; counts: BigInt64Array };
const buffers = new LogBuffers(counts);
const loop = new WaitLoop(bell);
const containers = new Map<number, LoggedContainer>();

const report = (message: LogReport, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

let stopped = false;

function hear(request: LogRequest): void {
  if (request.do === 'stop') {
    for (const container of containers.values()) container.close(true);
    containers.clear();
    stopped = true;
    return;
  }
  if (!('call' in request)) {
    tell(request);
    return;
  }
  try {
    answer(request);
    report({ to: request.call });
  } catch (reason) {
    const { code, message } = StatusError.from(reason);
    report({ to: request.call, error: { code, message } });
  }
}

function tell(request: LogNews): void {
  const container = containers.get(request.id);
  if (!container) return;
  switch (request.do) {
    case 'started':
      container.started();
      break;
    case 'exited':
      container.exited();
      break;
    case 'follow':
      container.follow(request.on);
      break;
    case 'ack':
      container.acknowledge(request.bytes);
  }
}

function answer(request: LogCall): void {
  const { id } = request;
  if (request.do === 'open') {
    const made = new LoggedContainer(id, request.options, request.state, { buffers, loop }, report);
    containers.set(id, made);
    return;
  }
  const container = containers.get(id);
  if (request.do === 'reopen') {
    container?.reopen();
    return;
  }
  containers.delete(id);
  container?.close(request.keep);
}

function hearAll(): void {
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) hear(next.message as LogRequest);
}

// Node's own event loop never gets a turn: this one waits for descriptors.
hearAll();
while (!stopped) loop.turn(hearAll);
loop.close();
