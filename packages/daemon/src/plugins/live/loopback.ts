/** Names of this machine, for itself. Nobody else can have them, so a page of another origin cannot be made to point here. */
const loopbackNames = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i;

/** The parts of `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`; undefined for any other address. */
export function loopbackAddress(text: string): { host: string; port: number } | undefined {
  const [, host = '', digits = ''] = /^(.*):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (!loopbackNames.test(host) || digits === '' || port > 65535) return undefined;
  return { host: host.replace(/^\[|\]$/g, ''), port };
}

/**
 * Whether a Host header names this machine by a name of its own. A browser that was sent here under another name (DNS rebinding) says that one.
 * The port may be any: a tunnel has its own.
 */
export function isLoopbackHost(header: string | undefined): boolean {
  return header !== undefined && loopbackNames.test(header.replace(/:\d{1,5}$/, ''));
}
