import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';

/** How many times longer than on a machine of its own a test waits: emulated ones are slow (`npm run test:vm`). */
export const patience = Number(process.env.GANTRY_TEST_PATIENCE ?? 1);

/** What a command printed and how it ended. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command to its end, feeding it `input`; fails the test by throwing unless `mayFail`. */
export async function run(
  file: string,
  args: readonly string[],
  options: { env?: Record<string, string>; input?: string; mayFail?: boolean; timeoutMs?: number; cwd?: string } = {},
): Promise<CommandResult> {
  const child = spawn(file, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const timer = setTimeout(() => child.kill('SIGKILL'), (options.timeoutMs ?? 60_000) * patience);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  const result = { code: code ?? 128 + (signal === 'SIGKILL' ? 9 : 15), stdout, stderr };
  if (result.code !== 0 && !options.mayFail) {
    throw new Error(`${file} ${args.join(' ')}: exit ${result.code}\n${stdout}${stderr}`);
  }
  return result;
}

/** Ends a process that this test started, waiting until it is gone. */
export async function endProcess(
  child: ChildProcess,
  signal: NodeJS.Signals = 'SIGTERM',
  withinMs = 60_000,
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), withinMs * patience);
  await exited;
  clearTimeout(timer);
}

/** Asks again and again, every 20 ms, until the answer is not undefined. @throws Error with `what` when time is up. */
export async function eventually<T>(
  what: string,
  ask: () => T | undefined | Promise<T | undefined>,
  withinMs = 60_000,
): Promise<T> {
  const end = performance.now() + withinMs * patience;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * A TCP port of the loopback interface that nobody listens on now. It lies below the kernel's range for ports that are
 * given out, so that no connection and no listener of another test takes it before it is used.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = net.createServer().listen(randomInt(20_000, 32_768), '127.0.0.1');
    try {
      await once(server, 'listening');
    } catch {
      continue;
    }
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Processes whose command line mentions a text (a test's own directory, say). */
export function processesMentioning(text: string): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      const environment = readFileSync(`/proc/${entry}/environ`, 'utf8');
      if (command.includes(text) || environment.includes(text)) found.push({ pid: Number(entry), command });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}
