/** `[stream_processors]`: which programs a layer goes through before it is a tar, told by media types: docs/stream-processors.md. */
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { toBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { failedPrecondition, StatusError, unimplemented, unknown } from '@gantry/api';
import { type LayerEncoding, LayerMediaType, layerForm, type ProcessorStep } from '@gantry/archive';
import { trustedProgram } from '../trust/trusted-file.ts';

export interface StreamProcessor {
  /** Media types it takes. */
  accepts: string[];
  /** Media type of what it makes of them. */
  returns: string;
  /** A path, or a name to look for in PATH. */
  path: string;
  args: string[];
  /** `NAME=value` */
  env: string[];
}

/** More in a row are taken for a circle. */
const longest = 16;

/**
 * How a layer of a media type becomes a plain tar: programs of the configuration come before what is built in, of several that accept a
 * type the one that was configured last. `payloads` are by a processor's id.
 * @throws Unimplemented `no processor for media-type`, so that another differ is asked
 */
export function layerEncoding(
  mediaType: string,
  processors: Readonly<Record<string, StreamProcessor>>,
  payloads: Readonly<Record<string, Any>> = {},
): LayerEncoding {
  const steps: ProcessorStep[] = [];
  for (let type = mediaType; ; ) {
    const [id, processor] = Object.entries(processors).findLast(([, { accepts }]) => accepts.includes(type)) ?? [];
    if (id === undefined || processor === undefined) {
      const form = layerForm(type);
      if (form === undefined) {
        throw unimplemented(`failed to get stream processor for ${mediaType}: no processor for media-type`);
      }
      return { processors: steps, ...(form === 'plain' && { compression: 'none' as const }) };
    }
    if (steps.length === longest) {
      throw failedPrecondition(`failed to get stream processor for ${mediaType}: more than ${longest} in a row`);
    }
    const payload = payloads[id];
    steps.push({
      id,
      file: findProgram(processor.path, mediaType),
      args: processor.args,
      env: processor.env,
      mediaType: type,
      ...(payload && { payload: toBinary(AnySchema, payload) }),
    });
    // A plain tar is what is wanted, also if another program accepts it.
    if (processor.returns === LayerMediaType.tar) return { processors: steps, compression: 'none' };
    type = processor.returns;
  }
}

/** The program, as Go finds it. It runs with the daemon's rights, so only root may be able to change it. */
function findProgram(name: string, mediaType: string): string {
  const what = `failed to get stream processor for ${mediaType}`;
  const searched = !name.includes('/');
  const folders = searched ? (process.env['PATH'] ?? '').split(':').filter((folder) => path.isAbsolute(folder)) : ['/'];
  const file = folders.map((folder) => path.resolve(folder, name)).find(isProgram);
  if (file === undefined) {
    const reason = searched ? `"${name}": executable file not found in $PATH` : `"${name}": no such executable file`;
    throw unknown(`${what}: exec: ${reason}`);
  }
  try {
    return trustedProgram(file);
  } catch (error) {
    throw StatusError.wrap(error, what);
  }
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
