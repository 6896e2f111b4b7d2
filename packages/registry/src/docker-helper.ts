import { unknown } from '@gantry/api';
import type { Credentials } from './credentials.ts';

/** Runs the helper with an action and what it reads; answers its exit code and its standard output. */
export type HelperRunner = (
  action: 'get' | 'store' | 'erase' | 'list',
  input: string,
  signal?: AbortSignal,
) => Promise<{ code: number; stdout: string }>;

/** A login as helpers keep it. */
export interface HelperLogin {
  /** See `dockerServerKey`. */
  serverUrl: string;
  username: string;
  secret: string;
}

/** What Docker's library answers for a login that it does not have; it goes to standard output. */
const notFound = 'credentials not found in native keychain';
/** The user name that marks a secret as a refresh token. */
const tokenUser = '<token>';

/** A program `docker-credential-*`: keeps logins in a keyring of the system. Errors never quote what holds a secret. */
export class DockerCredentialHelper {
  readonly #name: string;
  readonly #run: HelperRunner;

  /** @param name as errors name it */
  constructor(name: string, run: HelperRunner) {
    this.#name = name;
    this.#run = run;
  }

  /** undefined if it has no login for the server. */
  async get(serverUrl: string, signal?: AbortSignal): Promise<Credentials | undefined> {
    const { code, stdout } = await this.#run('get', serverUrl, signal);
    if (code !== 0) {
      if (stdout.trim() === notFound) return undefined;
      throw this.#failed('get', code, stdout);
    }
    const { Username: username, Secret: secret } = this.#parse(stdout, 'get') as { Username?: string; Secret?: string };
    if (typeof username !== 'string' || typeof secret !== 'string') {
      throw unknown(`credential helper ${this.#name} get: its answer has no Username and Secret`);
    }
    if (secret === '') return undefined;
    return username === tokenUser ? { kind: 'refresh', token: secret } : { kind: 'password', username, secret };
  }

  async store(login: HelperLogin): Promise<void> {
    const { serverUrl: ServerURL, username: Username, secret: Secret } = login;
    const { code, stdout } = await this.#run('store', JSON.stringify({ ServerURL, Username, Secret }));
    if (code !== 0) throw this.#failed('store', code, stdout);
  }

  async erase(serverUrl: string): Promise<void> {
    const { code, stdout } = await this.#run('erase', serverUrl);
    if (code !== 0 && stdout.trim() !== notFound) throw this.#failed('erase', code, stdout);
  }

  /** User names by server. */
  async list(): Promise<Record<string, string>> {
    const { code, stdout } = await this.#run('list', '');
    if (code !== 0) throw this.#failed('list', code, stdout);
    return this.#parse(stdout, 'list') as Record<string, string>;
  }

  #parse(stdout: string, action: string): Record<string, unknown> {
    try {
      const value: unknown = JSON.parse(stdout);
      if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
    } catch {
      // The parser's own words quote the text.
    }
    throw unknown(`credential helper ${this.#name} ${action}: its answer is not a JSON object`);
  }

  /** Helpers tell what went wrong on standard output, where a broken one may have written anything. */
  #failed(action: string, code: number, stdout: string): Error {
    const line = stdout.trim().split('\n')[0] ?? '';
    const words = line === '' || line.length > 200 || /[{}"]|secret|password|token/i.test(line) ? '' : `: ${line}`;
    return unknown(`credential helper ${this.#name} ${action}: exit status ${code}${words}`);
  }
}
