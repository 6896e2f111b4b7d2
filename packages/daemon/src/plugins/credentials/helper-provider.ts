import { DockerCredentialHelper, dockerServerKey } from '@gantry/registry';
import type {
  CredentialProvider,
  Credentials,
  CredentialsRequest,
} from '../../core/credentials/credential-provider.ts';
import { type CredentialProgram, runCredentialProgram } from './credential-program.ts';

/** A `docker-credential-*` program. */
export function helperOf(program: CredentialProgram): DockerCredentialHelper {
  return new DockerCredentialHelper(program.file, (action, input, signal) =>
    runCredentialProgram(program, [action], input, signal),
  );
}

/** Asks one Docker credential helper for every host. */
export class HelperProvider implements CredentialProvider {
  readonly #helper: DockerCredentialHelper;

  constructor(program: CredentialProgram) {
    this.#helper = helperOf(program);
  }

  async get({ host }: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined> {
    return await this.#helper.get(dockerServerKey(host), signal);
  }
}
