import { readFile } from 'node:fs/promises';
import os from 'node:os';
import { invalidArgument } from '@gantry/api';
import type { ServerConfig } from '../config/server-config.ts';

export interface TlsKeys {
  cert: string | Buffer;
  key: string | Buffer;
}

/**
 * The certificate of the streaming server: the configured one, or one made for this run, which clients do not verify.
 * @returns undefined without TLS. @throws InvalidArgument for half a configuration
 */
export async function tlsKeys(config: ServerConfig): Promise<TlsKeys | undefined> {
  const { tls_cert_file: cert, tls_key_file: key } = config.x509_key_pair_streaming;
  if (!config.enable_tls_streaming) {
    if (cert === '' && key === '') return undefined;
    throw invalidArgument(
      'tls_cert_file and/or tls_key_file of x509_key_pair_streaming are set, but enable_tls_streaming is not',
    );
  }
  if (cert !== '' && key !== '') return { cert: await readFile(cert), key: await readFile(key) };
  if (cert !== '' || key !== '') {
    throw invalidArgument('x509_key_pair_streaming must have both tls_cert_file and tls_key_file');
  }
  const { generate } = await import('selfsigned');
  const name = os.hostname();
  const addresses = Object.values(os.networkInterfaces()).flatMap((all) => all ?? []);
  const made = await generate([{ name: 'commonName', value: `containerd@${name}` }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    extensions: [
      { name: 'basicConstraints', cA: false },
      { name: 'keyUsage', digitalSignature: true, keyEncipherment: true },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: [{ type: 2, value: name }, ...addresses.map(({ address }) => ({ type: 7 as const, ip: address }))],
      },
    ],
  });
  return { cert: made.cert, key: made.private };
}
