/**
 * How often a fault test repeats what it does: `GANTRY_FAULT_ROUNDS` (50 under `npm run test:fault`), else the few rounds that `npm test`
 * has time for. A test without a short form passes nothing and skips itself by `longOnly` then.
 */
export function faultRounds(short = 0): number {
  const given = process.env['GANTRY_FAULT_ROUNDS'];
  if (given === undefined || given === '') return short;
  const rounds = Number(given);
  if (!Number.isSafeInteger(rounds) || rounds < 1)
    throw new RangeError(`GANTRY_FAULT_ROUNDS=${given} is no number of rounds`);
  return rounds;
}

/** The reason for which a test that takes minutes is skipped; false under `npm run test:fault`. */
export const longOnly: string | false = faultRounds() === 0 ? 'takes minutes: npm run test:fault' : false;
