// The connection of one command to the daemon.
import { statSync } from 'node:fs';
import type { Client } from '@gantry/client';
import type { Invocation } from './command.ts';
import { log } from './output.ts';

/** A command's work, given the daemon in the namespace that the command line names. Answers the exit code; 0 if nothing. */
export type ClientCommand = (client: Client, invocation: Invocation) => Promise<number> | Promise<void>;

/** The daemon's address, and the clock that `--timeout` sets. @throws Error if nothing is there */
export function socketOf(invocation: Invocation): string {
  const address = invocation.string('address');
  const file = address.startsWith('unix:') ? address.replace(/^unix:(\/\/)?/, '') : address;
  if (file.startsWith('/') && !statSync(file, { throwIfNoEntry: false }))
    throw new Error(`cannot access socket ${file}: stat ${file}: no such file or directory; does the daemon run?`);
  const overall = invocation.number('timeout');
  if (overall > 0) {
    setTimeout(() => {
      process.stderr.write('ctr: context deadline exceeded\n');
      process.exit(1);
    }, overall).unref();
  }
  return address;
}

/** Connects as the global flags say. @throws Error if nothing listens there */
export async function connect(invocation: Invocation): Promise<Client> {
  const address = socketOf(invocation);
  // Loaded here, so that help and wrong command lines are answered at once.
  const { Client } = await import('@gantry/client');
  return Client.connect({
    address,
    namespace: invocation.string('namespace'),
    timeoutMs: invocation.number('connect-timeout') || 10_000,
  });
}

/** The `run` of a command that needs the daemon. */
export function withClient(work: ClientCommand): (invocation: Invocation) => Promise<number> {
  return async (invocation) => {
    await using client = await connect(invocation);
    await warnOfDeprecations(client);
    return (await work(client, invocation)) ?? 0;
  };
}

/**
 * Tells first what the daemon was seen to use that is deprecated, as containerd's ctr does, unless
 * CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS is set. A daemon that cannot say is older.
 */
async function warnOfDeprecations(client: Client): Promise<void> {
  if (/^(1|t|true)$/i.test(process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'] ?? '')) return;
  const info = await client.introspection.server().catch(() => undefined);
  for (const { message } of info?.deprecations ?? []) log('warning', `DEPRECATION: ${message}`);
}
