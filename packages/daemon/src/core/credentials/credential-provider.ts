import type { Credentials, CredentialsRequest } from '@gantry/registry';

export type { Credentials, CredentialsRequest };

/** Knows logins for registries. */
export interface CredentialProvider {
  /**
   * The login for a host and an image; undefined if it has none. Never logs a secret, and never puts one into an error.
   * @throws StatusError if it could not find out
   */
  get(request: CredentialsRequest, signal?: AbortSignal): Promise<Credentials | undefined>;
  close?(): Promise<void>;
}
