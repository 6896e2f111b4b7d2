/** Job `unpack-tree`: a tar's entries below one path of somebody else's tree, such as a container's, for copying them in. */
import { constants } from 'node:os';
import { invalidArgument } from '@gantry/api';
import { closeFd } from '@gantry/sys/fast-at.ts';
import { type ByteSource, readSource } from '../byte-source.ts';
import type { JobContext } from '../job.ts';
import { TarError } from '../tar-header.ts';
import { type TarHandler, TarParser } from '../tar-parser.ts';
import { FileOverwriter } from './file-overwriter.ts';
import { type IdMaps, outsideId } from './id-maps.ts';
import { makeDirectory, openDirectory, rootedPath } from './rooted-path.ts';
import { TreeUnpacker } from './tree-unpacker.ts';

export interface UnpackTreeParams {
  /** Descriptor of the tree's root directory. The caller closes it. */
  root: number;
  /** A directory, made if it is not there; or a file, which gets the bytes of the archive's one file. */
  path: string;
  /** Give entries the owners that the archive says; else root's of the tree. */
  preserveOwnership?: boolean;
  ids?: IdMaps;
  /** What the archive calls so gets the other name. */
  rename?: { from: string; to: string };
  source: ByteSource;
}

const { ENOTDIR } = constants.errno;

/** Writes what comes. What was written before a failure stays. @throws StatusError InvalidArgument for what is not an archive */
export async function unpackTree(params: UnpackTreeParams, context: JobContext): Promise<void> {
  const path = rootedPath(params.path);
  const handler = openTarget(params, path);
  const parser = new TarParser(handler);
  try {
    for await (const chunk of readSource(params.source, context)) {
      context.signal.throwIfAborted();
      parser.write(chunk);
    }
    parser.end();
    handler.finish();
  } catch (error) {
    throw error instanceof TarError ? invalidArgument(error.message, error) : error;
  } finally {
    handler.close();
  }
}

type Target = TarHandler & { finish(): void; close(): void };

function openTarget(params: UnpackTreeParams, path: string): Target {
  if (openAsFile(params.root, path)) return new FileOverwriter(params, path);
  const { uid, gid } = params.ids ?? {};
  const directory = makeDirectory(params.root, path, { uid: outsideId(uid, 0), gid: outsideId(gid, 0) });
  const rename = params.rename && { from: rootedPath(params.rename.from), to: rootedPath(params.rename.to) };
  return new TreeUnpacker({ ...params, directory, isRoot: path === '', ...(rename && { rename }) });
}

/** Whether the path names something that is not a directory. */
function openAsFile(root: number, path: string): boolean {
  const fd = openDirectory(root, path);
  if (fd >= 0) closeFd(fd);
  return fd === -ENOTDIR;
}
