// Logging in to registries: a login is tried out before it is kept where Docker keeps its own.
import { readFileSync } from 'node:fs';
import { checkLogin, defaultHosts, type HostsProvider, hostsFromDirectory } from '@gantry/registry';
import { type Command, type Invocation, UsageError } from '../command.ts';
import { dockerConfigFile, eraseLogin, storeLogin } from '../docker-login.ts';
import { print } from '../output.ts';
import { askLine, askPassword } from '../prompt.ts';

/** The host of what a user typed: also a URL, as Docker Hub's is. */
function hostOf(argument: string | undefined): string {
  const host = (argument ?? 'docker.io').replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  if (host === '') throw new UsageError(`"${argument}" is no registry`);
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
}

function hostsOf(invocation: Invocation): HostsProvider {
  const scheme = invocation.bool('plain-http') ? 'http' : undefined;
  const directory = invocation.string('hosts-dir');
  const hosts = directory === '' ? defaultHosts(scheme) : hostsFromDirectory([directory], scheme);
  if (!invocation.bool('skip-verify')) return hosts;
  return async (name) => (await hosts(name)).map((host) => ({ ...host, tls: { ...host.tls, skipVerify: true } }));
}

async function askUsername(): Promise<string> {
  if (!process.stdin.isTTY) throw new UsageError('--username must be given where there is no terminal to ask at');
  return (await askLine('Username: ')).trim();
}

function passwordFromStdin(): string {
  return readFileSync(0, 'utf8').replace(/\r?\n$/, '');
}

const login: Command = {
  name: 'login',
  usage: 'log in to a registry',
  argsUsage: '[flags] [<registry>]',
  description:
    'The login is tried out at the registry before it is kept: in the credential helper that the config.json of Docker\nnames (credHelpers, credsStore), or else in that file. `ctr images pull` and `push` use it when no --user is given.',
  example: 'ctr registry login --username me --password-stdin registry.example.com <password.txt',
  flags: [
    { name: 'username', aliases: ['u'], kind: 'string', usage: 'name of the user' },
    { name: 'password-stdin', kind: 'bool', usage: 'read the password from standard input' },
    { name: 'plain-http', kind: 'bool', usage: 'allow HTTP without encryption' },
    { name: 'skip-verify', aliases: ['k'], kind: 'bool', usage: "do not check the registry's certificate" },
    { name: 'hosts-dir', kind: 'string', usage: 'directory with hosts.toml files' },
  ],
  async run(invocation) {
    const host = hostOf(invocation.args[0]);
    const fromStdin = invocation.bool('password-stdin');
    if (fromStdin && !invocation.isSet('username')) throw new UsageError('--password-stdin needs --username');
    const username = invocation.string('username') || (await askUsername());
    const secret = fromStdin ? passwordFromStdin() : await askPassword();
    if (username === '' || secret === '') throw new UsageError('a login needs a user name and a password');
    const asked = await checkLogin(host, { kind: 'password', username, secret }, { hosts: hostsOf(invocation) });
    if (!asked) process.stderr.write(`ctr: warning: ${host} asked for no login, so this one was not tried out\n`);
    if ((await storeLogin(host, username, secret)) === undefined) {
      process.stderr.write(
        `ctr: warning: the login is kept unencrypted in ${dockerConfigFile()}; name a credential helper there as credsStore to change that\n`,
      );
    }
    print('Login Succeeded\n');
  },
};

const logout: Command = {
  name: 'logout',
  usage: 'forget the login of a registry',
  argsUsage: '[<registry>]',
  example: 'ctr registry logout registry.example.com',
  async run(invocation) {
    const host = hostOf(invocation.args[0]);
    const known = await eraseLogin(host);
    print(known ? `Removed the login of ${host}\n` : `Not logged in to ${host}\n`);
  },
};

export const registry: Command = {
  name: 'registry',
  usage: 'log in to registries, and out',
  example: 'ctr registry login registry.example.com',
  commands: [login, logout],
};
