// Files between a container and this machine. Gantry's own command: containerd's ctr has none.
import { closeSync, lstatSync, openSync, statSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MessageChannel } from 'node:worker_threads';
import { chunksFromPort, pumpToPort } from '@gantry/archive';
import { packTree } from '@gantry/archive/tree-copy/pack-tree.ts';
import { unpackTree } from '@gantry/archive/tree-copy/unpack-tree.ts';
import { type Client, Code, hasCode } from '@gantry/client';
import { type Command, UsageError } from '../../command.ts';
import { withClient } from '../../session.ts';

/** One end of a copy: a path of a container, or of this machine; `-` is an archive on stdin or stdout. */
interface Place {
  container: string | undefined;
  path: string;
}

function placeOf(text: string): Place {
  const colon = text.indexOf(':');
  const local = colon <= 0 || text.slice(0, colon).includes('/') || text.startsWith('.');
  return local
    ? { container: undefined, path: text }
    : { container: text.slice(0, colon), path: text.slice(colon + 1) || '/' };
}

export const copy: Command = {
  name: 'cp',
  usage: 'copy files into or out of a container (Gantry only)',
  description:
    'A directory that exists gets what is copied under its own name; otherwise DEST is the name that it gets. `-` is a tar archive on stdin or ' +
    'stdout. Links are copied as links.',
  argsUsage: '[flags] CONTAINER:PATH DEST|-\n   ctr tasks cp [flags] SOURCE|- CONTAINER:PATH',
  example: 'ctr tasks cp web:/etc/nginx ./nginx',
  flags: [{ name: 'archive', aliases: ['a'], kind: 'bool', usage: 'keep the owners of files' }],
  run: withClient(async (client, invocation) => {
    const from = placeOf(invocation.argument(0, 'source'));
    const to = placeOf(invocation.argument(1, 'destination'));
    const keepOwners = invocation.bool('archive');
    if (from.container !== undefined && to.container === undefined) return copyOut(client, from, to, keepOwners);
    if (from.container === undefined && to.container !== undefined) return copyIn(client, from, to, keepOwners);
    throw new UsageError('one of source and destination must be CONTAINER:PATH, the other a path here');
  }),
};

async function copyOut(client: Client, from: Place, to: Place, keepOwners: boolean): Promise<void> {
  const archive = client.transfer.fromContainer(from.container!, from.path);
  if (to.path === '-') {
    await pipeline(archive, process.stdout, { end: false });
    return;
  }
  const target = path.resolve(to.path);
  const into = isDirectory(target);
  const name = lastName(from.path);
  const directory = into ? target : path.dirname(target);
  if (!isDirectory(directory)) throw new Error(`no such directory: ${directory}`);
  const rename = into || name === '' ? undefined : { from: name, to: path.basename(target) };
  const { port1, port2 } = new MessageChannel();
  const root = openSync('/', 'r');
  const own = process.geteuid?.() ?? 0;
  const group = process.getegid?.() ?? 0;
  try {
    const params = {
      root,
      path: name === '' && !into ? target : directory,
      preserveOwnership: keepOwners,
      // Files are the caller's, unless their owners are kept.
      ...(!keepOwners && { ids: ids(own, group) }),
      ...(rename && { rename }),
      source: { kind: 'port' as const, port: port1 },
    };
    const [sent, written] = await Promise.allSettled([pumpToPort(archive, port2), unpackTree(params, context())]);
    if (sent.status === 'rejected') throw sent.reason;
    if (written.status === 'rejected') throw written.reason;
  } finally {
    closeSync(root);
  }
}

const ids = (uid: number, gid: number) => ({
  uid: [{ inside: 0, outside: uid, size: 1 }],
  gid: [{ inside: 0, outside: gid, size: 1 }],
});

async function copyIn(client: Client, from: Place, to: Place, preserveOwnership: boolean): Promise<void> {
  const container = to.container!;
  const options = { preserveOwnership };
  if (from.path === '-') return client.transfer.toContainer(container, to.path, process.stdin, options);
  const source = path.resolve(from.path);
  const name = path.basename(source);
  lstatSync(source);
  const kind = await kindOf(client, container, to.path);
  const into = kind === 'directory' || to.path.endsWith('/');
  // A file that is there gets the bytes of the file; all else is unpacked into a directory.
  const target = into || kind === 'file' ? to.path : path.posix.dirname(to.path);
  const archive = packed(source, into ? name : lastName(to.path) || name);
  await client.transfer.toContainer(container, target, archive, options);
}

/** What a path of a container is. */
async function kindOf(client: Client, container: string, at: string): Promise<'directory' | 'file' | 'nothing'> {
  try {
    // A link to a directory is asked for as what it leads to.
    for await (const _ of client.transfer.fromContainer(container, `${at}/`, { noWalk: true }));
    return 'directory';
  } catch (error) {
    if (hasCode(error, Code.InvalidArgument)) return 'file';
    if (hasCode(error, Code.NotFound) && error.message.endsWith('ENOENT')) return 'nothing';
    throw error;
  }
}

async function* packed(source: string, name: string): AsyncGenerator<Uint8Array> {
  const { port1, port2 } = new MessageChannel();
  const root = openSync('/', 'r');
  try {
    const packing = packTree({ root, path: source, name, port: port1 }, context());
    packing.catch(() => undefined);
    try {
      yield* chunksFromPort(port2);
    } catch (error) {
      await packing;
      throw error;
    }
    await packing;
  } finally {
    closeSync(root);
  }
}

/** '' for the root. */
function lastName(at: string): string {
  return path.posix.basename(path.posix.resolve('/', at));
}

function isDirectory(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function context() {
  return { signal: new AbortController().signal, progress() {}, nextMessage: () => Promise.reject(new Error('none')) };
}
