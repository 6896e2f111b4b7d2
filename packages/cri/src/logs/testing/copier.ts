// A daemon that does nothing but copy one container's output, for tests to kill: options as JSON, and 'resume', 'exited', 'leave'
// to exit in the middle of it, or none. It prints `open`, and ends when all is in the log.
import type { ContainerLogOptions } from '../container-logs.ts';
import { WorkerLogs } from '../worker-logs.ts';
import { quiet } from './log-lines.ts';

const options = JSON.parse(process.argv[2]!) as ContainerLogOptions;
const how = process.argv[3];
const logs = new WorkerLogs(quiet);
const resume = how === 'resume' || how === 'exited';
const io = await logs.open(options, resume ? { exited: how === 'exited' } : undefined);
if (!resume) io.started();
process.stdout.write('open\n');
if (how === 'leave') process.exit(7);
const alive = setInterval(() => undefined, 1000);
await io.drained;
clearInterval(alive);
await io.close();
await logs.close();
