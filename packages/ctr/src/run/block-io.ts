import { globSync, readFileSync, realpathSync } from 'node:fs';
import { type BlockIo, blockIoClasses } from '@gantry/oci/spec/block-io.ts';
import { hostDevice } from './devices.ts';

/** The parameters of a class; without a file of classes there is none. @throws Error in containerd's words */
export async function blockIoOfClass(file: string, name: string): Promise<BlockIo | undefined> {
  const classes = file ? await readClasses(file) : undefined;
  if (!name) return undefined;
  const found = classes?.get(name);
  if (!found) throw new Error(`blockio-class error: no OCI BlockIO parameters for class "${name}"`);
  return found;
}

async function readClasses(file: string): Promise<Map<string, BlockIo>> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (reason) {
    const { code, message } = reason as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? `open ${file}: no such file or directory` : message;
    throw new Error(`blockio-config-file error: failed to read config file "${file}": ${why}`);
  }
  try {
    const { parseYaml } = await import('@gantry/oci/cdi/yaml.ts');
    return blockIoClasses(await parseYaml(text), (pattern) =>
      [...new Set(globSync(pattern).map((each) => realpathSync(each)))]
        .sort()
        .map((each) => hostDevice(each))
        .filter(({ type }) => type === 'b')
        .map(({ major, minor }) => ({ major, minor })),
    );
  } catch (reason) {
    const { message } = reason as Error;
    throw new Error(`blockio-config-file error: failed to set configuration from file "${file}": ${message}`);
  }
}
