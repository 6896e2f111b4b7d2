// `npm run test:fault`: the tests in test/fault, with 50 rounds each and a seed that is printed. GANTRY_FAULT_SEED repeats the choices of
// a run (not the machine's timing), GANTRY_FAULT_ROUNDS sets the number of rounds. Arguments are test files to run instead of all;
// `--quick` leaves out the installation of what they need.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { top } from './setup.mjs';

const seed = process.env.GANTRY_FAULT_SEED ?? String(Math.floor(Math.random() * 2 ** 32));
const rounds = process.env.GANTRY_FAULT_ROUNDS ?? '50';
const args = process.argv.slice(2);
const files = args.filter((arg) => !arg.startsWith('--'));
const told = `GANTRY_FAULT_SEED=${seed} GANTRY_FAULT_ROUNDS=${rounds}`;
console.log(`fault tests: ${told}`);
// One file at a time: they hold the programs to times.
const options = [...args.filter((arg) => arg.startsWith('--')), '--no-checks', '--one-at-a-time', '--timeout=3600000'];
const result = spawnSync(
  process.execPath,
  [path.join(top, 'scripts/test.mjs'), ...options, ...(files.length > 0 ? files : ['test/fault/*.test.ts'])],
  {
    cwd: top,
    stdio: 'inherit',
    env: { ...process.env, GANTRY_FAULT_SEED: seed, GANTRY_FAULT_ROUNDS: rounds },
  },
);
console.log(`fault tests: ${result.status === 0 ? 'passed' : 'failed'}, ${told}`);
process.exit(result.status ?? 1);
