import { unknown } from '@gantry/api';
import type {
  CredentialProvider,
  Credentials,
  CredentialsRequest,
} from '../../core/credentials/credential-provider.ts';
import { imageOf } from '../../core/credentials/match-image.ts';
import { TrustedModule } from '../../core/trust/trusted-module.ts';

export interface ModuleProviderOptions {
  name: string;
  file: string;
  timeoutMs: number;
  /** Handed to the module as they are. */
  options: unknown;
}

/**
 * Asks an ES module that exports `getCredentials({ host, image, reference, options })`. It answers nothing, or
 * `{ username, password }`, `{ identityToken }` or `{ header }`, each with an optional `expiresAt` in milliseconds since 1970.
 * What the module prints is dropped.
 */
export class ModuleProvider implements CredentialProvider {
  readonly #options: ModuleProviderOptions;
  readonly #module: TrustedModule;

  constructor(options: ModuleProviderOptions) {
    this.#options = options;
    this.#module = new TrustedModule({ file: options.file, name: options.name });
  }

  async get(request: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined> {
    const { host, reference } = request;
    const { options, timeoutMs } = this.#options;
    const argument = { host, image: imageOf(request), reference, options };
    return readLogin(await this.#module.call('getCredentials', argument, { timeoutMs, signal }));
  }

  async close(): Promise<void> {
    await this.#module.close();
  }
}

function readLogin(value: unknown): Credentials | undefined {
  if (value == null) return undefined;
  const { username, password, identityToken, header, expiresAt } = value as Record<string, unknown>;
  const expiry = typeof expiresAt === 'number' ? { expiresAt } : {};
  if (typeof username === 'string' && typeof password === 'string') {
    return { kind: 'password', username, secret: password, ...expiry };
  }
  if (typeof identityToken === 'string') return { kind: 'refresh', token: identityToken, ...expiry };
  if (typeof header === 'string') return { kind: 'header', value: header, ...expiry };
  throw unknown('its answer has none of username and password, identityToken or header');
}
