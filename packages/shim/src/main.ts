import { parseFlags, type ShimFlags, usage } from './flags.ts';

/**
 * gantry-shim's entry. Each action is imported when it is asked for, so that `start` for a running group loads next to nothing.
 */
async function main(): Promise<void> {
  let flags: ShimFlags;
  try {
    flags = parseFlags(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}`);
    process.exitCode = 2;
    return;
  }
  if (flags.version) {
    const { shimVersion } = await import('./version.ts');
    process.stdout.write(`gantry-shim:\n  Version:  ${shimVersion}\n  Node version: ${process.version}\n`);
  } else if (flags.info) {
    const { runtimeInfo } = await import('./info.ts');
    process.stdout.write(await runtimeInfo());
  } else if (flags.action === 'start') {
    const { start } = await import('./start.ts');
    process.stdout.write(await start(flags));
  } else if (flags.action === 'delete') {
    const { deleteAction } = await import('./delete-action.ts');
    process.stdout.write(await deleteAction(flags));
  } else if (flags.action === 'serve') {
    const { serve } = await import('./server.ts');
    await serve(flags);
  } else {
    process.stderr.write(usage);
    process.exitCode = flags.help ? 0 : 1;
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`gantry-shim: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
