import { failedPrecondition, StatusError } from '@gantry/api';
import type { Logger } from '../log/logger.ts';
import type { CredentialProvider, Credentials, CredentialsRequest } from './credential-provider.ts';
import { imageOf, matchesImage } from './match-image.ts';

export interface NamedProvider {
  name: string;
  provider: CredentialProvider;
  /** Images it is asked for (see `matchesImage`); empty: all. */
  matchImages: readonly string[];
}

/**
 * Asks one provider after the other until one has a login: those that the host's configuration names, else the usual ones.
 * One that fails is passed over while another can answer.
 */
export class ProviderChain implements CredentialProvider {
  readonly #providers: ReadonlyMap<string, NamedProvider>;
  readonly #usual: readonly string[];
  readonly #log: Logger;

  constructor(providers: readonly NamedProvider[], usual: readonly string[], log: Logger) {
    this.#providers = new Map(providers.map((provider) => [provider.name, provider]));
    this.#usual = usual;
    this.#log = log;
  }

  async get(request: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined> {
    const { host, providers: named } = request;
    const image = imageOf(request);
    let failure: StatusError | undefined;
    for (const name of named ?? this.#usual) {
      const entry = this.#providers.get(name);
      if (!entry) {
        throw failedPrecondition(`hosts.toml of ${host} names credential provider "${name}", which is not configured`);
      }
      const { provider, matchImages } = entry;
      if (matchImages.length > 0 && !matchImages.some((pattern) => matchesImage(pattern, image))) continue;
      try {
        const found = await provider.get(request, signal);
        this.#log.debug(found ? 'credentials found' : 'no credentials here', { provider: name, host, image });
        if (found) return found;
      } catch (error) {
        signal?.throwIfAborted();
        this.#log.warn('credential provider failed', { provider: name, host, image, error });
        failure ??= StatusError.wrap(error, `credential provider ${name} failed for ${image}`);
      }
    }
    // Going on as nobody would end in a refusal that tells nothing of the reason.
    if (failure) throw failure;
    return undefined;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#providers.values()].map(({ provider }) => provider.close?.()));
  }
}
