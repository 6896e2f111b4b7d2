import { readFileSync } from 'node:fs';
import { unknown } from '@gantry/api';
import { parseYaml } from '@gantry/oci/cdi/yaml.ts';

/** A document of a configuration file. @throws StatusError in goresctrl's words */
export async function readDocument(file: string): Promise<unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw unknown(`failed to read config file "${file}": ${(error as Error).message}`, error);
  }
  try {
    return await parseYaml(text);
  } catch (error) {
    throw unknown(`failed to set configuration from file "${file}": ${(error as Error).message}`, error);
  }
}
