import { invalidArgument } from '@gantry/api';

const longest = 4096;

/** Key and value of a label together may have 4096 bytes. @throws InvalidArgument */
export function validateLabels(labels: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(labels)) {
    const total = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (total <= longest) continue;
    const shown = key.length > 64 ? `${key.slice(0, 64)}` : key;
    throw invalidArgument(
      `label key and value length (${total} bytes) greater than maximum size (${longest} bytes), key: ${shown}: invalid argument`,
    );
  }
}
