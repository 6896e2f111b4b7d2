// Generates packages/api/src/gen from the .proto files, with buf and protoc-gen-es from node_modules.
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const bin = path.join(top, 'node_modules', '.bin');
rmSync(path.join(top, 'packages/api/src/gen'), { recursive: true, force: true });
const result = spawnSync(path.join(bin, 'buf'), ['generate'], {
  cwd: top,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${bin}${path.delimiter}${process.env.PATH ?? ''}` },
});
process.exit(result.status ?? 1);
