// The entry point of the executable: runs the command line and ends the process with its exit code.
import { main } from './main.ts';

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`gantryd: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
