import { FifoIo } from './fifo-io.ts';
import { isLogger, LoggerIo } from './logger-io.ts';
import type { IoContext, ProcessIo, StdioRequest } from './process-io.ts';
import { isStreamed, StreamedIo } from './streamed-io.ts';
import { TerminalIo } from './terminal-io.ts';

/** Connects a process's standard streams as the client's request says. @throws StatusError, SysError */
export async function openProcessIo(request: StdioRequest, context: IoContext): Promise<ProcessIo> {
  if (isStreamed(request)) return StreamedIo.open(request, context, (fifos) => openProcessIo(fifos, context));
  if (isLogger(request.stdout)) return LoggerIo.open(request, context);
  if (request.terminal) return TerminalIo.open(request, context);
  return FifoIo.open(request, context);
}
