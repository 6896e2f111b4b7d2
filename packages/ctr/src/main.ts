// ctr: the command line client of containerd-compatible daemons.
import { helpText, runCommand, UsageError } from './command.ts';
import { root } from './root.ts';

async function main(argv: string[]): Promise<number> {
  const print = (text: string) => void process.stdout.write(text);
  if (argv.length === 1 && ['--version', '-version', '-v'].includes(argv[0]!)) {
    const { clientVersion } = await import('./version.ts');
    print(`ctr github.com/containerd/containerd/v2 ${clientVersion.version}\n`);
    return 0;
  }
  if (argv.length === 0) {
    print(helpText(['ctr'], root, root.commands!));
    return 0;
  }
  return runCommand(root, argv, print);
}

// A reader that leaves (`ctr … | head`) ends the program as SIGPIPE would.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(141);
  throw error;
});

/** Ends the program once all that it has printed is with its reader. */
function end(code: number): void {
  process.stderr.write('', () => process.stdout.write('', () => process.exit(code)));
}

main(process.argv.slice(2)).then(end, (error: unknown) => {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`ctr: ${message}\n`);
  if (error instanceof UsageError && error.path) process.stderr.write(`See '${error.path.join(' ')} --help'.\n`);
  if (process.argv.includes('--debug') && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
      process.stderr.write(`${cause.stack ?? cause.message}\n`);
  }
  end(1);
});
