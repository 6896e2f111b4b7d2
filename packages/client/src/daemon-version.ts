import { Code, hasCode } from '@gantry/api';
import { grpcTransport } from '@gantry/rpc';
import { Introspection } from './introspection.ts';

/** Which daemon it is. */
export interface DaemonVersion {
  readonly version: string;
  readonly revision: string;
  /** Empty if the daemon does not tell. */
  readonly uuid: string;
}

/** Asks a daemon what it is, without loading the rest of this client. @throws StatusError DeadlineExceeded if it does not answer */
export async function daemonVersion(address: string, timeoutMs = 10_000): Promise<DaemonVersion> {
  const transport = grpcTransport(address);
  try {
    await transport.ready(timeoutMs);
    const introspection = new Introspection(transport);
    const [version, uuid] = await Promise.all([
      introspection.version(),
      introspection.server().then(
        (server) => server.uuid,
        (reason: unknown) => {
          if (hasCode(reason, Code.Unimplemented)) return '';
          throw reason;
        },
      ),
    ]);
    return { ...version, uuid };
  } finally {
    await transport.close();
  }
}
