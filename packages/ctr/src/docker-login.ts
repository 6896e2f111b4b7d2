// Logins where Docker's own client keeps them: in a credential helper if its configuration names one, else in that file.
import { spawn } from 'node:child_process';
import { mkdir, open, readFile, realpath, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import {
  type Credentials,
  type DockerConfig,
  DockerCredentialHelper,
  dockerAuthOf,
  dockerHelperFor,
  dockerServerKey,
  parseDockerConfig,
  withDockerAuth,
  withoutDockerAuth,
} from '@gantry/registry';

/** `config.json` in DOCKER_CONFIG, or in `~/.docker`. */
export function dockerConfigFile(): string {
  return path.join(process.env.DOCKER_CONFIG || path.join(homedir(), '.docker'), 'config.json');
}

/** undefined if there is none. @throws Error that names the file */
async function readConfig(): Promise<DockerConfig | undefined> {
  const file = dockerConfigFile();
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return parseDockerConfig(text);
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** Replaces the file in one step; only its owner may read it. */
async function writeConfig(config: DockerConfig): Promise<void> {
  await mkdir(path.dirname(dockerConfigFile()), { recursive: true, mode: 0o700 });
  const file = await realpath(dockerConfigFile()).catch(() => dockerConfigFile());
  const fresh = `${file}.${process.pid}.new`;
  try {
    await using handle = await open(fresh, 'wx', 0o600);
    await handle.writeFile(`${JSON.stringify(config, undefined, '\t')}\n`);
    await handle.sync();
    await rename(fresh, file);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}

const helperTimeoutMs = 60_000;

function helperNamed(name: string): DockerCredentialHelper {
  if (!/^[\w.-]+$/.test(name)) throw new Error(`${dockerConfigFile()}: "${name}" is no name of a credential helper`);
  const program = `docker-credential-${name}`;
  return new DockerCredentialHelper(program, (action, input) => {
    const { promise, resolve, reject } = Promise.withResolvers<{ code: number; stdout: string }>();
    // A keyring may have to ask its user: it keeps the terminal's standard error.
    const child = spawn(program, [action], { stdio: ['pipe', 'pipe', 'inherit'], timeout: helperTimeoutMs });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.on('error', (error) => reject(new Error(`cannot run ${program}: ${error.message}`)));
    child.on('close', (code, signal) => {
      if (code === null) reject(new Error(`${program} ${action} was ended by ${signal}`));
      else resolve({ code, stdout });
    });
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    return promise;
  });
}

/** The login of a registry's host; undefined if none is kept. */
export async function findLogin(host: string): Promise<Credentials | undefined> {
  const config = await readConfig();
  if (!config) return undefined;
  const helper = dockerHelperFor(config, host);
  const kept = helper === undefined ? undefined : await helperNamed(helper).get(dockerServerKey(host));
  return kept ?? dockerAuthOf(config, host);
}

/** Keeps a login. Answers the helper that has it now, or undefined if it stands unencrypted in the file. */
export async function storeLogin(host: string, username: string, secret: string): Promise<string | undefined> {
  const config = (await readConfig()) ?? {};
  const helper = dockerHelperFor(config, host);
  if (helper !== undefined) {
    await helperNamed(helper).store({ serverUrl: dockerServerKey(host), username, secret });
  }
  // Docker notes in the file also what a helper keeps, so that it knows where it is logged in.
  await writeConfig(withDockerAuth(config, host, helper === undefined ? { username, secret } : undefined));
  return helper;
}

/** Forgets a login. Answers whether there was one. */
export async function eraseLogin(host: string): Promise<boolean> {
  const config = await readConfig();
  if (!config) return false;
  const helper = dockerHelperFor(config, host);
  const known = helper !== undefined && (await helperNamed(helper).get(dockerServerKey(host))) !== undefined;
  if (helper !== undefined && known) await helperNamed(helper).erase(dockerServerKey(host));
  const without = withoutDockerAuth(config, host);
  const listed = Object.keys(without.auths ?? {}).length < Object.keys(config.auths ?? {}).length;
  if (listed) await writeConfig(without);
  return known || listed;
}
