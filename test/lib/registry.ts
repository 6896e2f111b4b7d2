import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { endProcess, eventually, freePort, run } from './processes.ts';

export interface RegistryOptions {
  /** Where blobs lie; default `registry` in its directory. Several registries may share one. */
  storage?: string;
  /** PEM texts; without, it speaks plain HTTP. */
  tls?: {
    cert: string;
    key: string;
    /** Clients must show a certificate of this authority. */
    clientCa?: string;
  };
  /** Lets in only `registryUser`, by basic authentication. */
  basic?: boolean;
  /** Lets in only those with a token of that server. */
  token?: { realm: string; service: string; issuer: string; rootCert: string };
}

/** Who a registry with `basic` knows. */
export const registryUser = { name: 'tester', password: 's3cret-pass' };
/** docker-registry knows bcrypt only. */
const passwordHash = '$2y$05$abcdefghijklmnopqrstuuV7fpPozvyqJfnY19y0802WTlXUm6Rjy';

let count = 0;

/** Debian's docker-registry on the loopback interface, filled by skopeo. */
export class TestRegistry {
  readonly address: string;
  readonly storage: string;
  readonly #child: ChildProcess;

  private constructor(address: string, storage: string, child: ChildProcess) {
    this.address = address;
    this.storage = storage;
    this.#child = child;
  }

  static async start(directory: string, options: RegistryOptions = {}): Promise<TestRegistry> {
    const port = await freePort();
    const name = `registry-${++count}`;
    const storage = options.storage ?? path.join(directory, 'registry');
    const write = (suffix: string, text: string): string => {
      const file = path.join(directory, `${name}.${suffix}`);
      writeFileSync(file, text);
      return file;
    };
    const { tls, basic, token } = options;
    mkdirSync(storage, { recursive: true });
    const lines = [
      'version: 0.1',
      'log: {level: error}',
      `storage: {filesystem: {rootdirectory: ${storage}}, delete: {enabled: true}}`,
      'http:',
      `  addr: 127.0.0.1:${port}`,
    ];
    if (tls) {
      lines.push('  tls:', `    certificate: ${write('crt', tls.cert)}`, `    key: ${write('key', tls.key)}`);
      if (tls.clientCa) lines.push(`    clientcas: [${write('clients.crt', tls.clientCa)}]`);
    }
    if (basic) {
      const file = write('htpasswd', `${registryUser.name}:${passwordHash}\n`);
      lines.push(`auth: {htpasswd: {realm: test, path: ${file}}}`);
    } else if (token) {
      lines.push('auth:', '  token:', `    realm: ${token.realm}`, `    service: ${token.service}`);
      lines.push(`    issuer: ${token.issuer}`, `    rootcertbundle: ${write('tokens.crt', token.rootCert)}`);
    }
    const config = write('yml', `${lines.join('\n')}\n`);
    const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
    await eventually('docker-registry answers', async () => {
      if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}`);
      return (await answers(port, tls !== undefined)) ? true : undefined;
    });
    return new TestRegistry(`localhost:${port}`, storage, child);
  }

  /** Copies an OCI layout into it with skopeo; answers the reference. */
  async fill(layout: string, name: string, tag = 'latest'): Promise<string> {
    const reference = `${this.address}/${name}`;
    await run('skopeo', [
      'copy',
      '--insecure-policy',
      '--dest-tls-verify=false',
      '-q',
      `oci:${layout}:${tag}`,
      `docker://${reference}`,
    ]);
    return reference;
  }

  async close(): Promise<void> {
    await endProcess(this.#child);
  }
}

/** Whether something answers HTTP there, be it a refusal. One that wants client certificates only says so in TLS. */
function answers(port: number, secure: boolean): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, path: '/v2/', rejectUnauthorized: false, agent: false as const };
    const request = secure ? https.get(options) : http.get(options);
    request.on('response', (response) => {
      response.resume();
      resolve(true);
    });
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code?.startsWith('ERR_SSL') === true));
  });
}
