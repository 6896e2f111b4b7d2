import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import type { TlsOptions } from './hosts.ts';

/**
 * What TLS connections are checked and made with. Reading some 270 authorities takes tens of milliseconds of the main thread, so a
 * context is made once and used by all connections with the same settings.
 */

const contexts = new Map<string, Promise<SecureContext>>();
const maxContexts = 64;

export function secureContext(tls: TlsOptions): Promise<SecureContext> {
  const id = createHash('sha256').update(JSON.stringify(tls)).digest('base64');
  const known = contexts.get(id);
  if (known) return known;
  const made = make(tls);
  contexts.set(id, made);
  made.catch(() => contexts.delete(id));
  for (const oldest of contexts.keys()) {
    if (contexts.size <= maxContexts) break;
    contexts.delete(oldest);
  }
  return made;
}

async function make({ ca = [], pairs = [], skipVerify = false }: TlsOptions): Promise<SecureContext> {
  const more = skipVerify ? [] : [...(await systemAuthorities()), ...ca];
  return createSecureContext({
    // Without others those that Node brings are there already, parsed once for all.
    ...(more.length > 0 && { ca: [...getCACertificates('default'), ...more] }),
    ...(pairs.length > 0 && { cert: pairs.map(({ cert }) => cert), key: pairs.map(({ key }) => key) }),
  });
}

/** Where systems keep all their authorities in one file; the first that is there counts. */
const bundles = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

let system: Promise<string[]> | undefined;

/** Authorities of the system that Node does not bring, where administrators add theirs; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Read once. */
function systemAuthorities(): Promise<string[]> {
  system ??= readSystem(process.env);
  return system;
}

export async function readSystem(environment: Readonly<Record<string, string | undefined>>): Promise<string[]> {
  const { SSL_CERT_FILE: file, SSL_CERT_DIR: directories } = environment;
  const texts: string[] = [];
  for (const bundle of file ? [file] : bundles) {
    const text = await readFile(bundle, 'latin1').catch(() => '');
    if (text === '') continue;
    texts.push(text);
    break;
  }
  for (const directory of directories?.split(':') ?? []) {
    for (const name of await readdir(directory).catch(() => [])) {
      texts.push(await readFile(path.join(directory, name), 'latin1').catch(() => ''));
    }
  }
  const known = new Set(getCACertificates('default').map(bare));
  const found = new Map<string, string>();
  for (const text of texts) {
    for (const [pem] of text.matchAll(/-----BEGIN CERTIFICATE-----[\w+/=\s]+-----END CERTIFICATE-----/g)) {
      const key = bare(pem);
      if (!known.has(key)) found.set(key, pem);
    }
  }
  return [...found.values()];
}

function bare(pem: string): string {
  return pem.replace(/\s+/g, '');
}
