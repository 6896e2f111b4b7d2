import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import type { TlsOptions } from './hosts.ts';

/** Authorities and client certificates from files, checked when they are read: TLS would pass over a bad one in silence. */

export async function readAuthority(file: string): Promise<string> {
  const text = await read(file, 'CA cert');
  try {
    void new X509Certificate(text);
  } catch (error) {
    throw invalidArgument(`unable to load CA cert "${file}": not a PEM certificate`, error);
  }
  return text;
}

/** The key may be in the certificate's file. */
export async function readPair(certFile: string, keyFile: string): Promise<{ cert: string; key: string }> {
  const cert = await read(certFile, 'CERT file');
  const key = keyFile === '' ? cert : await read(keyFile, 'CERT file');
  let belongs: boolean;
  try {
    belongs = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    const files = keyFile === '' ? certFile : `${certFile}, ${keyFile}`;
    throw invalidArgument(`failed to load X509 key pair: ${files}: not a PEM certificate and key`, error);
  }
  if (!belongs) throw invalidArgument(`failed to load X509 key pair: the key of ${certFile} is another one's`);
  return { cert, key };
}

/** Docker's layout: `*.crt` are authorities, `x.cert` with `x.key` (or the key in it) a client's pair. */
export async function loadCertificates(directory: string): Promise<TlsOptions | undefined> {
  const entries = (await readdir(directory, { withFileTypes: true })).filter((entry) => !entry.isDirectory());
  const names = entries.map(({ name }) => name).sort();
  const tls: TlsOptions = {};
  for (const name of names) {
    const file = path.join(directory, name);
    if (name.endsWith('.crt')) tls.ca = [...(tls.ca ?? []), await readAuthority(file)];
    if (!name.endsWith('.cert')) continue;
    const key = `${name.slice(0, -5)}.key`;
    const pair = await readPair(file, names.includes(key) ? path.join(directory, key) : '');
    tls.pairs = [...(tls.pairs ?? []), pair];
  }
  return tls.ca || tls.pairs ? tls : undefined;
}

async function read(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw invalidArgument(`unable to read ${what} "${file}": ${(error as Error).message}`, error);
  }
}
