// How a command talks to a registry.
import { existsSync, readFileSync } from 'node:fs';
import type { Credentials, RegistryOptions } from '@gantry/client';
import type { Flag, Invocation } from './command.ts';
import { dockerConfigFile, findLogin } from './docker-login.ts';
import { notYet } from './not-yet.ts';

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

/** @throws Error for flags that cannot be passed to a daemon */
export async function registryOptions(invocation: Invocation): Promise<RegistryOptions> {
  for (const flag of ['tlscacert', 'tlscert', 'tlskey']) {
    if (invocation.isSet(flag))
      throw notYet(`--${flag}: put it into a hosts.toml file in the directory that --hosts-dir names`);
  }
  if (invocation.bool('skip-verify'))
    throw notYet('--skip-verify: set skip_verify in a hosts.toml file in the directory that --hosts-dir names');
  const given = await credentialsOf(invocation);
  const credentials = given ? () => given : storedLogins();
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

async function credentialsOf(invocation: Invocation): Promise<Credentials | undefined> {
  const refreshToken = invocation.string('refresh');
  if (refreshToken) return { refreshToken };
  const user = invocation.string('user');
  if (!user) return undefined;
  const at = user.indexOf(':');
  if (at >= 0) return { username: user.slice(0, at), password: user.slice(at + 1) };
  return { username: user, password: await askPassword() };
}

/** Answers a registry that asks with the login that `ctr registry login` (or Docker) keeps for it; undefined if none is kept. */
function storedLogins(): RegistryOptions['credentials'] {
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

/** Reads a line without showing it; from a pipe, the first line of it. */
export async function askPassword(): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) return readFileSync(0, 'utf8').split('\n')[0] ?? '';
  stderr.write('Password: ');
  stdin.setRawMode(true);
  try {
    let typed = '';
    for await (const chunk of stdin.setEncoding('utf8')) {
      for (const character of chunk as string) {
        if (character === '\r' || character === '\n' || character === '\u0004') return typed;
        if (character === '\u0003') throw new Error('no password given');
        typed = character === '\u007f' ? typed.slice(0, -1) : typed + character;
      }
    }
    return typed;
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}
