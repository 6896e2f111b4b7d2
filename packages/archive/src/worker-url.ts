/** Where a worker's file is: beside this one when run from source, beside the bundle as `<name>.js` when bundled. */
export function workerUrl(importMetaUrl: string, name: string): URL {
  const extension = new URL(importMetaUrl).pathname.endsWith('.ts') ? '.ts' : '.js';
  return new URL(`./${name}${extension}`, importMetaUrl);
}
