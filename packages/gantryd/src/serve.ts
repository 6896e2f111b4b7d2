// Assembles the daemon from its plugins and runs it until a signal.
import path from 'node:path';
import { createDaemon, parseLogLevel, runUntilSignal } from '@gantry/daemon';
import { proxyPlugin } from '@gantry/daemon/plugins/proxy/proxy-plugin.ts';
import { keepHeapSmall, returnMemoryWhenIdle } from '@gantry/sys/idle-memory.ts';
import { defaultConfigPath, type Flags } from './flags.ts';
import { builtinPlugins } from './plugins.ts';

/** Where the bundles are: beside this one, or, when run from source, in the project's dist/. */
function programDir(): string {
  return import.meta.url.endsWith('.ts') ? path.resolve(import.meta.dirname, '../../../dist') : import.meta.dirname;
}

/** Resolves when the daemon has been stopped. @throws Error that says why it could not start */
export async function serve(flags: Flags): Promise<void> {
  keepHeapSmall();
  const level = flags.logLevel === undefined ? undefined : parseLogLevel(flags.logLevel);
  if (flags.logLevel !== undefined && level === undefined) {
    throw new Error(`not a valid log level: ${JSON.stringify(flags.logLevel)}`);
  }
  const daemon = await createDaemon({
    plugins: builtinPlugins,
    configPath: flags.config ?? defaultConfigPath,
    configOptional: flags.config === undefined,
    root: flags.root && path.resolve(flags.root),
    state: flags.state && path.resolve(flags.state),
    address: flags.address && path.resolve(flags.address),
    logLevel: level,
    programDir: programDir(),
    proxy: proxyPlugin,
    ownProcess: true,
  });
  returnMemoryWhenIdle();
  await runUntilSignal(daemon);
}
