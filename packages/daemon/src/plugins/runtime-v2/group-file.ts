import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { type Bundle, readBundleFile, writeBundleFile } from './bundle.ts';

/**
 * Which shim a task belongs to, kept in its bundle: a daemon that was started again can start the same one again, with
 * the options that it was started with.
 */
export interface GroupFile {
  /** One shim of ours for all tasks of the namespace with these options. */
  shared: boolean;
  /** The shim is a sandbox's, which outlives its tasks. */
  borrowed: boolean;
  /** The sandbox whose shim this is, if it is one's that the controller `shim` made. */
  sandbox?: string | undefined;
  /** The runtime's options. */
  options: Any | undefined;
}

const fileName = 'shim-group.json';

export function writeGroupFile(bundle: Bundle, { shared, borrowed, sandbox, options }: GroupFile): Promise<void> {
  const stored = options && { typeUrl: options.typeUrl, value: Buffer.from(options.value).toString('base64') };
  return writeBundleFile(
    bundle,
    fileName,
    JSON.stringify({
      shared,
      ...(borrowed && { borrowed }),
      ...(sandbox && { sandbox }),
      ...(stored && { options: stored }),
    }),
  );
}

/** A bundle without one has a shim to itself. */
export async function readGroupFile(bundle: Bundle): Promise<GroupFile> {
  const text = await readBundleFile(bundle, fileName);
  if (text === undefined) return { shared: false, borrowed: false, options: undefined };
  const { shared, borrowed, sandbox, options } = JSON.parse(text) as {
    shared: boolean;
    borrowed?: boolean;
    sandbox?: string;
    options?: { typeUrl: string; value: string };
  };
  const any = options && create(AnySchema, { typeUrl: options.typeUrl, value: Buffer.from(options.value, 'base64') });
  return { shared, borrowed: borrowed === true, ...(sandbox && { sandbox }), options: any };
}
