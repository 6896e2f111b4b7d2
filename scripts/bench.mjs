// `npm run bench`: builds, then runs bench/main.ts with the project's own Node.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const node = path.join(top, 'node_modules/.bin/node');
for (const args of [
  [path.join(top, 'scripts/build.mjs')],
  [path.join(top, 'bench/main.ts'), ...process.argv.slice(2)],
]) {
  const { status } = spawnSync(node, args, { stdio: 'inherit', cwd: top });
  if (status !== 0) process.exit(status ?? 1);
}
