// How a command talks to a registry.
import { existsSync } from 'node:fs';
import type { Credentials, RegistryOptions } from '@gantry/client';
import { type Flag, type Invocation, UsageError } from './command.ts';
import { askPassword } from './prompt.ts';

export const registryFlags: readonly Flag[] = [
  { name: 'skip-verify', aliases: ['k'], kind: 'bool', usage: "do not check the registry's certificate" },
  { name: 'plain-http', kind: 'bool', usage: 'allow HTTP without encryption' },
  { name: 'user', aliases: ['u'], kind: 'string', usage: 'as user: name[:password]' },
  { name: 'refresh', kind: 'string', usage: 'refresh token for the authorization server' },
  { name: 'hosts-dir', kind: 'string', usage: 'directory with hosts.toml files, at the daemon' },
  { name: 'tlscacert', kind: 'string', usage: 'file with the certificate authority of the registry' },
  { name: 'tlscert', kind: 'string', usage: 'file with a client certificate' },
  { name: 'tlskey', kind: 'string', usage: 'file with the key of the client certificate' },
  { name: 'http-dump', kind: 'bool', usage: "show the daemon's requests and the answers to them" },
  { name: 'http-trace', kind: 'bool', usage: "show the daemon's requests as they go" },
];

/** Settings of a connection that only this program itself can make; no message carries them to the daemon. */
const ownFlags = ['skip-verify', 'tlscacert', 'tlscert', 'tlskey'];

/** @throws UsageError for flags that are of use with --local only, the registry's and those named */
export function requireLocal(invocation: Invocation, flags: readonly string[] = []): void {
  for (const flag of [...flags, ...ownFlags])
    if (invocation.isSet(flag)) throw new UsageError(`"--${flag}" requires "--local" flag`);
}

/** How the daemon is to talk to the registry. */
export async function registryOptions(invocation: Invocation): Promise<RegistryOptions> {
  const credentials = await credentialsFor(invocation);
  const hostsDirectory = invocation.string('hosts-dir');
  return {
    ...(credentials ? { credentials } : {}),
    ...(hostsDirectory ? { hostsDirectory } : {}),
    ...(invocation.bool('plain-http') ? { defaultScheme: 'http' as const } : {}),
    ...(invocation.bool('http-dump') || invocation.bool('http-trace')
      ? { onLog: (text: string) => void process.stderr.write(text) }
      : {}),
  };
}

/** Answers a registry that asks: with what the flags give, or else with the login that is kept for it. */
export async function credentialsFor(invocation: Invocation): Promise<RegistryOptions['credentials']> {
  const given = await credentialsOf(invocation);
  return given ? () => given : await storedLogins();
}

/** What --user or --refresh give; a password that is not there is asked for. */
async function credentialsOf(invocation: Invocation): Promise<Credentials | undefined> {
  const user = invocation.string('user');
  const refreshToken = invocation.string('refresh');
  if (!user) return refreshToken ? { refreshToken } : undefined;
  const at = user.indexOf(':');
  const password = at < 0 ? '' : user.slice(at + 1);
  return { username: at < 0 ? user : user.slice(0, at), password: password || (await askPassword()) };
}

/** Answers a registry that asks with the login that `ctr registry login` (or Docker) keeps for it; undefined if none is kept. */
async function storedLogins(): Promise<RegistryOptions['credentials']> {
  // Loaded here: most commands about images talk to no registry.
  const { dockerConfigFile, findLogin } = await import('./docker-login.ts');
  if (!existsSync(dockerConfigFile())) return undefined;
  return async ({ host }) => {
    try {
      const login = await findLogin(host);
      if (login?.kind === 'password') return { username: login.username, password: login.secret };
      if (login?.kind === 'refresh') return { refreshToken: login.token };
      return login && { header: login.value };
    } catch (error) {
      // The daemon may know a login of its own, or need none.
      process.stderr.write(`ctr: warning: the stored login of ${host} cannot be read: ${(error as Error).message}\n`);
      return undefined;
    }
  };
}
