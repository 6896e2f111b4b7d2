// `npm run test:pods`: 100 pods of two containers each are started, listed, killed and removed again and again for ten minutes, and what is
// there at rest after each round must not grow. Prints each round and the slope of every count and of memory. `--quick` does it for a
// minute with 30 pods; `--pods=N` and `--seconds=N` set both; `--no-install` leaves out the installation of what it needs.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { top } from './setup.mjs';

const args = process.argv.slice(2);
const given = (name) => args.find((arg) => arg.startsWith(`--${name}=`))?.split('=')[1];
const quick = args.includes('--quick');
const pods = given('pods') ?? (quick ? '30' : '100');
const seconds = given('seconds') ?? (quick ? '60' : '600');
for (const [name, value] of Object.entries({ pods, seconds })) {
  if (/^[1-9]\d{0,5}$/.test(value)) continue;
  console.error(`test:pods: --${name}=${value}: expected a number`);
  process.exit(1);
}
const options = ['--no-checks', '--one-at-a-time', `--timeout=${(Number(seconds) * 3 + 600) * 1000}`];
if (args.includes('--no-install')) options.push('--quick');
const result = spawnSync(
  process.execPath,
  [path.join(top, 'scripts/test.mjs'), ...options, 'test/fault/pods-churn.test.ts'],
  { cwd: top, stdio: 'inherit', env: { ...process.env, GANTRY_PODS: pods, GANTRY_PODS_SECONDS: seconds } },
);
process.exit(result.status ?? 1);
