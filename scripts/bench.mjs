// `npm run bench`: installs, generates and builds what is not there, then runs bench/main.ts with the project's own Node.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { node, prepare, SetupError, top } from './setup.mjs';

try {
  prepare();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exit(1);
}
const args = [path.join(top, 'bench/main.ts'), ...process.argv.slice(2)];
process.exit(spawnSync(node, args, { stdio: 'inherit', cwd: top }).status ?? 1);
