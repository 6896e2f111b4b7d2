/** What a command printed without what differs from run to run: ids, times, addresses, numbers of processes, and klog's lines. */
export function plain(text: string): string {
  return (
    text
      .replace(/^E\d{4} .*?err=<\n[\s\S]*?^ > .*\n/gm, '')
      .replace(/^E\d{4} .*\n/gm, '')
      .replace(/\b[0-9a-f]{64}\b/g, 'ID')
      .replace(/\b[0-9a-f]{13}\b/g, 'ID')
      .replace(/\b\d{4}-\d\d-\d\d[T ][\d:.]+(?: ?[+-][\d:]{4,5}|Z)?(?: UTC)?/g, 'TIME')
      .replace(/(?:Less than a|\d+) (?:second|minute)s?(?: ago)?|About a minute(?: ago)?/g, 'A WHILE')
      .replace(/\b10\.221\.0\.\d+/g, 'ADDRESS')
      .replace(/\b127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
      // Seconds since crictl began.
      .replace(/\b(DEBU|INFO|WARN|ERRO|FATA)\[\d{4}\]/g, '$1')
      // Columns are as wide as what is in them.
      .replace(/ {2,}/g, '  ')
  );
}

/** All places in a JSON text where something is: `.a.b[]`. Names that are ids, addresses or interfaces of this run are not told apart. */
export function pathsOf(json: string): Set<string> {
  const found = new Set<string>();
  const visit = (value: unknown, at: string): void => {
    if (Array.isArray(value)) for (const item of value) visit(item, `${at}[]`);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) visit(inner, `${at}.${key.replace(/^veth\w+$/, 'veth')}`);
    else if (value !== null) found.add(at);
  };
  visit(JSON.parse(json), '');
  return found;
}
