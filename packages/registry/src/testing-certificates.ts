/** Makes certificates for tests: an authority, and what it signs for a server or a client. X.509 version 3, P-256 keys. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { isIP } from 'node:net';

export interface TestingCertificate {
  /** PEM. */
  cert: string;
  key: string;
}

export interface CertificateOptions {
  commonName: string;
  /** DNS names and IPv4 addresses of a server; a certificate without is a client's. */
  names?: readonly string[];
  /** Seconds from now; negative: it has ended. */
  validFor?: number;
}

export class TestingAuthority implements TestingCertificate {
  readonly cert: string;
  readonly key: string;
  readonly #name: Buffer;
  readonly #private: KeyObject;
  readonly #keyId: Buffer;

  constructor(commonName = 'Authority of a test') {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#name = nameOf(commonName);
    this.#private = privateKey;
    this.#keyId = keyId(publicKey);
    const extensions = [
      extension('2.5.29.19', sequence(boolean(true)), true),
      extension('2.5.29.15', bits(0x06), true),
      extension('2.5.29.14', octets(this.#keyId)),
    ];
    this.cert = this.#sign(this.#name, publicKey, extensions, 86_400);
    this.key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  }

  issue({ commonName, names = [], validFor = 86_400 }: CertificateOptions): TestingCertificate {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const purpose = names.length > 0 ? '1.3.6.1.5.5.7.3.1' : '1.3.6.1.5.5.7.3.2';
    const extensions = [
      extension('2.5.29.15', bits(0x80), true),
      extension('2.5.29.37', sequence(oid(purpose))),
      extension('2.5.29.35', sequence(tagged(0x80, this.#keyId))),
    ];
    if (names.length > 0) extensions.push(extension('2.5.29.17', sequence(...names.map(alternative))));
    return {
      cert: this.#sign(nameOf(commonName), publicKey, extensions, validFor),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    };
  }

  #sign(subject: Buffer, publicKey: KeyObject, extensions: Buffer[], validFor: number): string {
    const algorithm = sequence(oid('1.2.840.10045.4.3.2'));
    const serial = randomBytes(8);
    serial[0] = (serial[0] as number) & 0x7f || 1;
    const end = Date.now() + validFor * 1000;
    const body = sequence(
      tagged(0xa0, integer(Buffer.from([2]))),
      integer(serial),
      algorithm,
      this.#name,
      sequence(time(Math.min(Date.now(), end) - 86_400_000), time(end)),
      subject,
      publicKey.export({ type: 'spki', format: 'der' }),
      tagged(0xa3, sequence(...extensions)),
    );
    const signature = sign('sha256', body, this.#private);
    const der = sequence(body, algorithm, tagged(0x03, Buffer.concat([Buffer.from([0]), signature])));
    const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
    return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
  }
}

function keyId(key: KeyObject): Buffer {
  return createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest();
}

/** DER: tag, length, value. */
function tagged(tag: number, value: Buffer): Buffer {
  const { length } = value;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), value]);
  const digits = Buffer.from(length.toString(16).padStart(length > 0xff ? 4 : 2, '0'), 'hex');
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length]), digits, value]);
}

const sequence = (...items: Buffer[]): Buffer => tagged(0x30, Buffer.concat(items));
const integer = (value: Buffer): Buffer => tagged(0x02, value);
const octets = (value: Buffer): Buffer => tagged(0x04, value);
const boolean = (value: boolean): Buffer => tagged(0x01, Buffer.from([value ? 0xff : 0]));

/** A bit string of one byte, without the zeros at its end. */
function bits(value: number): Buffer {
  const unused = 31 - Math.clz32(value & -value);
  return tagged(0x03, Buffer.from([unused, value]));
}

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const digits = [part & 0x7f];
    for (let left = part >> 7; left > 0; left >>= 7) digits.unshift(0x80 | (left & 0x7f));
    bytes.push(...digits);
  }
  return tagged(0x06, Buffer.from(bytes));
}

function nameOf(commonName: string): Buffer {
  return sequence(tagged(0x31, sequence(oid('2.5.4.3'), tagged(0x0c, Buffer.from(commonName)))));
}

function time(milliseconds: number): Buffer {
  const digits = new Date(milliseconds).toISOString().replace(/[-:T]|\..*/g, '');
  return tagged(0x17, Buffer.from(`${digits.slice(2)}Z`));
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value));
}

function alternative(name: string): Buffer {
  return isIP(name) === 4 ? tagged(0x87, Buffer.from(name.split('.').map(Number))) : tagged(0x82, Buffer.from(name));
}
