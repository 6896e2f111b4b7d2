import { existsSync } from 'node:fs';
import path from 'node:path';
import { failedPrecondition, StatusError } from '@gantry/api';
import { type DockerConfig, dockerAuthOf, dockerHelperFor, dockerServerKey, parseDockerConfig } from '@gantry/registry';
import type {
  CredentialProvider,
  Credentials,
  CredentialsRequest,
} from '../../core/credentials/credential-provider.ts';
import type { ProgramRunner } from '../../core/programs/program-runner.ts';
import { readTrusted } from '../../core/trust/trusted-file.ts';
import { helperOf } from './helper-provider.ts';

export interface DockerConfigOptions {
  /** The file; it is read anew each time. */
  file: string;
  env: Readonly<Record<string, string>>;
  timeoutMs: number;
  programs: ProgramRunner;
}

/**
 * Docker's `config.json`: logins in it, and the helpers that it names, looked up in PATH. The file names programs that are
 * run, so it has to be as trusted as they are.
 */
export class DockerConfigProvider implements CredentialProvider {
  readonly #options: DockerConfigOptions;

  constructor(options: DockerConfigOptions) {
    this.#options = options;
  }

  async get({ host }: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined> {
    const config = this.#read();
    if (!config) return undefined;
    const helper = dockerHelperFor(config, host);
    if (helper !== undefined) {
      const { env, timeoutMs, programs } = this.#options;
      const program = {
        file: findHelper(helper, env.PATH ?? process.env.PATH ?? ''),
        args: [],
        env,
        timeoutMs,
        programs,
      };
      const found = await helperOf(program).get(dockerServerKey(host), signal);
      if (found) return found;
    }
    return dockerAuthOf(config, host);
  }

  #read(): DockerConfig | undefined {
    const { file } = this.#options;
    try {
      return parseDockerConfig(readTrusted(file).toString('utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error instanceof StatusError ? error : failedPrecondition(`${file}: ${(error as Error).message}`);
    }
  }
}

function findHelper(name: string, searchPath: string): string {
  if (!/^[\w.-]+$/.test(name)) throw failedPrecondition(`"${name}" is no name of a credential helper`);
  const program = `docker-credential-${name}`;
  for (const directory of searchPath.split(':')) {
    const file = path.join(directory, program);
    if (path.isAbsolute(directory) && existsSync(file)) return file;
  }
  throw failedPrecondition(`${program} is not in the daemon's PATH`);
}
