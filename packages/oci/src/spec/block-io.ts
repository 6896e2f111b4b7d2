/** Block I/O classes, as goresctrl defines them for containerd: names for sets of weights and throttles, in a YAML file. */

/** A device, by its numbers. */
export interface BlockDevice {
  major: number;
  minor: number;
}

/** `linux.resources.blockIO` of the runtime specification, as far as classes set it. */
export interface BlockIo extends Record<string, unknown> {
  weight?: number;
  weightDevice?: (BlockDevice & { weight: number })[];
  throttleReadBpsDevice?: (BlockDevice & { rate: number })[];
  throttleWriteBpsDevice?: (BlockDevice & { rate: number })[];
  throttleReadIOPSDevice?: (BlockDevice & { rate: number })[];
  throttleWriteIOPSDevice?: (BlockDevice & { rate: number })[];
}

const throttles = {
  ThrottleReadBps: 'throttleReadBpsDevice',
  ThrottleWriteBps: 'throttleWriteBpsDevice',
  ThrottleReadIOPS: 'throttleReadIOPSDevice',
  ThrottleWriteIOPS: 'throttleWriteIOPSDevice',
} as const;
const known = new Set([...Object.keys(throttles), 'Devices', 'Weight']);

const factors: Record<string, number> = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
for (const [power, prefix] of ['Ki', 'Mi', 'Gi', 'Ti', 'Pi'].entries()) factors[prefix] = 1024 ** (power + 1);

function quantity(field: string, text: unknown, least: number, most: number): number | undefined {
  if (text === undefined || text === null || text === '') return undefined;
  const match = /^(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$/.exec(String(text));
  if (!match) throw new Error(`syntax error in "${field}" ("${text}")`);
  const value = Math.ceil(Number(match[1]) * factors[match[2] ?? '']!);
  if (value < least) throw new Error(`value of "${field}" (${value}) smaller than minimum (${least})`);
  if (value > most) throw new Error(`value of "${field}" (${value}) bigger than maximum (${most})`);
  return value;
}

/** Reads a document of classes. `devicesOf` finds the devices of a pattern as `/dev/sd*`. @throws Error that says what is wrong */
export function blockIoClasses(document: unknown, devicesOf: (pattern: string) => BlockDevice[]): Map<string, BlockIo> {
  const { Classes: classes = {} } = (document ?? {}) as { Classes?: Record<string, Record<string, unknown>[]> };
  const result = new Map<string, BlockIo>();
  for (const [name, entries] of Object.entries(classes)) {
    const blockIo: BlockIo = {};
    for (const entry of entries ?? []) addEntry(blockIo, entry, devicesOf);
    result.set(name, blockIo);
  }
  return result;
}

function addEntry(
  blockIo: BlockIo,
  entry: Record<string, unknown>,
  devicesOf: (pattern: string) => BlockDevice[],
): void {
  const odd = Object.keys(entry).find((key) => !known.has(key));
  if (odd !== undefined) throw new Error(`unknown field "${odd}"`);
  const weight = quantity('Weight', entry['Weight'], 10, 1000);
  const patterns = entry['Devices'] as string[] | undefined;
  const devices = patterns?.flatMap(devicesOf) ?? [];
  if (weight !== undefined && !patterns) blockIo.weight = weight;
  if (weight !== undefined && devices.length > 0)
    blockIo.weightDevice = [...(blockIo.weightDevice ?? []), ...devices.map((device) => ({ ...device, weight }))];
  for (const [field, key] of Object.entries(throttles)) {
    const rate = quantity(field, entry[field], 0, Number.MAX_SAFE_INTEGER);
    if (rate === undefined) continue;
    if (!patterns) throw new Error(`ignoring throttling (${field}=${rate}): Devices not listed`);
    if (devices.length > 0) blockIo[key] = [...(blockIo[key] ?? []), ...devices.map((device) => ({ ...device, rate }))];
  }
}
