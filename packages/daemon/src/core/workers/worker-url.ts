/**
 * Where a worker's entry point is. In development that is the TypeScript file beside the module that starts it; in the
 * bundle, where every module has become one file, it is `<name>.js` beside the bundle.
 *
 * @param moduleUrl the caller's `import.meta.url`
 * @param name the entry point's file name without extension
 */
export function workerUrl(moduleUrl: string, name: string): URL {
  return new URL(moduleUrl.endsWith('.ts') ? `./${name}.ts` : `./${name}.js`, moduleUrl);
}
