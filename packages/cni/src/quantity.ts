import { invalidArgument } from '@gantry/api';

const decimal: Record<string, number> = { n: -9, u: -6, m: -3, '': 0, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };
const binary: Record<string, bigint> = { Ki: 10n, Mi: 20n, Gi: 30n, Ti: 40n, Pi: 50n, Ei: 60n };

/** A Kubernetes quantity (`1.5M`, `10Ki`, `2e3`) as a whole number, rounded up. @throws InvalidArgument with Kubernetes' words */
export function parseQuantity(text: string): bigint {
  const match = /^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$/.exec(text);
  if (!match) {
    throw invalidArgument(
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
  }
  const [, number = '', suffix = ''] = match;
  const [, sign = '', whole = '', fraction = ''] = /^([+-]?)(\d*)(?:\.(\d*))?$/.exec(number) ?? [];
  if (whole + fraction === '') throw invalidArgument('unable to parse numeric part of quantity');
  const digits = BigInt(whole + fraction);
  const exponent = /^[eE]([+-]?\d+)$/.exec(suffix)?.[1];
  const power = exponent === undefined ? decimal[suffix] : Number(exponent);
  const shift = binary[suffix];
  if ((power === undefined && shift === undefined) || Math.abs(power ?? 0) > 30)
    throw invalidArgument("unable to parse quantity's suffix");
  const tens = (power ?? 0) - fraction.length;
  const up = digits * 10n ** BigInt(Math.max(0, tens)) * (1n << (shift ?? 0n));
  const down = 10n ** BigInt(Math.max(0, -tens));
  return sign === '-' ? -(up / down) : (up + down - 1n) / down;
}
