/** Why a request got no answer, in the words that containerd's users search for, and what to do. */
export function transportFailure(reason: unknown, url: URL): string {
  const error = reason as NodeJS.ErrnoException & { errors?: Error[] };
  const code = codeOf(error);
  const native = (error.errors?.map((item) => item.message).join(', ') || error.message || String(reason)).trim();
  const [words, hint] = explain(code, url);
  const text = words === '' ? native : `${words}: ${native}`;
  return hint === '' ? text : `${text} (${hint})`;
}

/** Of an error or, where a proxy or several addresses are between, of what caused it. */
export function codeOf(reason: unknown): string {
  for (let at = reason, depth = 0; at instanceof Error && depth < 5; depth++) {
    const { code, errors, cause } = at as { code?: unknown; errors?: Error[]; cause?: unknown };
    // Those of gRPC are numbers, and say nothing of the network.
    if (typeof code === 'string' && !code.startsWith('UND_ERR_PRX')) return code;
    at = errors?.[0] ?? cause;
  }
  return '';
}

const unknownAuthority = 'tls: failed to verify certificate: x509: certificate signed by unknown authority';

function explain(code: string, url: URL): [words: string, hint: string] {
  const { host, hostname } = url;
  switch (code) {
    case 'ECONNREFUSED':
      return ['connect: connection refused', `nothing listens at ${host}`];
    case 'ECONNRESET':
      return ['connection reset by peer', `${host} broke the connection off: try again later`];
    case 'UND_ERR_SOCKET':
      return ['EOF', `${host} closed the connection: try again later`];
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return ['connect: no route to host', `check the network between here and ${host}`];
    case 'ENOTFOUND':
      return ['no such host', `the name ${hostname} cannot be resolved: check the reference and DNS`];
    case 'EAI_AGAIN':
      return ['no answer from DNS', `the name ${hostname} cannot be resolved now: check DNS`];
    case 'ETIMEDOUT':
    case 'UND_ERR_CONNECT_TIMEOUT':
      return ['i/o timeout', `${host} does not take connections: check the network, or dial_timeout in hosts.toml`];
    case 'UND_ERR_HEADERS_TIMEOUT':
      return ['timeout awaiting response headers', `${host} is slow to answer: try again later`];
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
      return [unknownAuthority, `put the CA of ${host} as "ca" into its hosts.toml, or into the system's certificates`];
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return [
        'tls: failed to verify certificate: x509: certificate has expired or is not yet valid',
        `renew the certificate of ${host}, or set this machine's clock`,
      ];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [
        'tls: failed to verify certificate: x509: certificate is valid for other names',
        `the certificate of ${host} is for another name: use that name`,
      ];
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return [
        'http: server gave HTTP response to HTTPS client',
        `${host} does not speak TLS: use --plain-http, or name it with http:// in hosts.toml`,
      ];
    default:
      // As OpenSSL's versions differ in what they call these.
      if (!/^ERR_SSL_.*ALERT_(?:BAD_CERTIFICATE|CERTIFICATE_REQUIRED|UNKNOWN_CA|HANDSHAKE_FAILURE)$/.test(code))
        return ['', ''];
      return [
        'remote error: tls: bad certificate',
        `${host} wants a client certificate that it knows: name one as "client" in hosts.toml`,
      ];
  }
}
