// Blobs of the content store: lists, reading, writing, labels, deleting.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Client, Code, type ContentInfo, hasCode, type Time, toMillis } from '@gantry/client';
import { type Command, UsageError } from '../../command.ts';
import { forEachName, log, print, printTable, written } from '../../output.ts';
import { withClient } from '../../session.ts';
import { tabbed } from '../../table.ts';
import { decimalSize, humanDuration, labelList, parseLabels } from '../../units.ts';

const age = (time: Time | undefined): string => (time ? humanDuration(Date.now() - toMillis(time)) : '-');

export const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the blobs',
  argsUsage: '[flags] [<filter>, ...]',
  example: 'ctr content ls \'labels."containerd.io/uncompressed"\'',
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the digests only' }],
  run: withClient(async (client, invocation) => {
    const rows: string[][] = [];
    for await (const info of client.content.list([...invocation.args])) {
      if (invocation.bool('quiet')) print(`${info.digest}\n`);
      else rows.push(row(info));
    }
    if (!invocation.bool('quiet')) printTable([['DIGEST', 'SIZE', 'AGE', 'LABELS'], ...rows], tabbed);
  }),
};

const row = ({ digest, size, createdAt, labels }: ContentInfo): string[] => [
  digest,
  decimalSize(size),
  age(createdAt),
  labelList(labels),
];

export const active: Command = {
  name: 'active',
  usage: 'list the writes under way',
  argsUsage: '[flags] [<regexp>]',
  example: 'ctr content active',
  flags: [
    { name: 'timeout', aliases: ['t'], kind: 'duration', usage: 'give up after this time', default: '0s' },
    { name: 'root', kind: 'string', usage: 'not used', default: '/tmp/content' },
  ],
  run: withClient(async (client, invocation) => {
    const [pattern] = invocation.args;
    const limit = invocation.number('timeout');
    const statuses = await client.content.statuses(
      pattern ? [`ref~=${JSON.stringify(pattern)}`] : [],
      limit > 0 ? { timeoutMs: limit } : {},
    );
    printTable(
      [
        ['REF', 'SIZE', 'AGE', ''],
        ...statuses.map(({ ref, offset, startedAt }) => [ref, decimalSize(offset), age(startedAt), '']),
      ],
      tabbed,
    );
  }),
};

export const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'delete blobs for good',
  argsUsage: '[<digest>, ...]',
  example: 'ctr content rm sha256:0000000000000000000000000000000000000000000000000000000000000000',
  run: withClient(async (client, invocation) =>
    forEachName(
      invocation.args,
      async (digest) => {
        try {
          await client.content.delete(digest);
          print(`${digest}\n`);
        } catch (reason) {
          // One that is gone is what was asked for.
          if (!hasCode(reason, Code.NotFound)) throw reason;
        }
      },
      (digest, error) => `failed to delete ${digest}: ${error.message}`,
    ),
  ),
};

export const get: Command = {
  name: 'get',
  usage: 'print a blob',
  argsUsage: '[<digest>, ...]',
  example: 'ctr content get sha256:0000000000000000000000000000000000000000000000000000000000000000',
  run: withClient(async (client, invocation) => {
    for await (const piece of client.content.read(invocation.argument(0, 'digest'))) await written(piece);
  }),
};

export const ingest: Command = {
  name: 'ingest',
  usage: 'write standard input into a blob',
  argsUsage: '[flags] <key>',
  example: 'ctr content ingest my-blob < file',
  flags: [
    { name: 'expected-size', kind: 'int', usage: 'it must have this many bytes', default: 0 },
    { name: 'expected-digest', kind: 'string', usage: 'it must have this digest' },
  ],
  run: withClient(async (client, invocation) => {
    const [ref] = invocation.args;
    if (!ref) throw new UsageError('must specify a transaction reference');
    const size = invocation.number('expected-size');
    const expected = invocation.string('expected-digest');
    await client.content.ingest(ref, process.stdin, {
      ...(size > 0 ? { size } : {}),
      ...(expected ? { expected } : {}),
    });
  }),
};

export const label: Command = {
  name: 'label',
  usage: 'set labels of a blob; an empty value clears one',
  argsUsage: '<digest> [<label>=<value> ...]',
  example: 'ctr content label sha256:0000000000000000000000000000000000000000000000000000000000000000 keep=yes',
  run: withClient(async (client, invocation) => {
    const digest = invocation.argument(0, 'digest');
    const changes = parseLabels(invocation.args.slice(1));
    const isLook = Object.keys(changes).length === 0;
    const { labels } = await (isLook ? client.content.info(digest) : client.content.setLabels(digest, changes));
    print(`${labelList(labels, '')}\n`);
  }),
};

async function editFile(editor: string, file: string): Promise<void> {
  const child = spawn('/bin/sh', ['-c', `${editor} "$1"`, 'sh', file], { stdio: 'inherit' });
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('exit', resolve));
  if (code !== 0) throw new Error(`the editor ended with ${code ?? 'a signal'}`);
}

export const edit: Command = {
  name: 'edit',
  usage: 'change a blob in an editor and print the digest of the new one',
  argsUsage: '[flags] <digest>',
  example: 'ctr content edit --editor vi sha256:0000000000000000000000000000000000000000000000000000000000000000',
  flags: [
    { name: 'validate', kind: 'string', usage: 'not used' },
    { name: 'editor', kind: 'string', usage: 'the editor', env: ['EDITOR'] },
  ],
  run: withClient(async (client, invocation) => {
    if (invocation.isSet('validate')) throw new Error('validating the edit result not supported');
    const digest = invocation.argument(0, 'digest');
    const editor = invocation.string('editor');
    if (!editor) throw new Error('no editor: set EDITOR or give --editor');
    const directory = mkdtempSync(path.join(tmpdir(), 'ctr-edit-'));
    try {
      const file = path.join(directory, 'content');
      writeFileSync(file, await client.content.readAll(digest));
      await editFile(editor, file);
      const made = await client.content.ingest(`edit-${process.pid}-${Date.now()}`, readFileSync(file), {
        labels: { 'containerd.io/gc.root': new Date().toISOString() },
      });
      print(`${made.digest}\n`);
    } finally {
      rmSync(directory, { recursive: true });
    }
  }),
};

/** Blobs reachable from others by labels of this form are layers. */
const layerReference = 'containerd.io/gc.ref.content.l.';

async function pruneLayers(client: Client, dry: boolean): Promise<void> {
  if (dry) log('debug', 'dry run, no changes will be applied');
  for await (const { digest, labels } of client.content.list()) {
    const references = Object.keys(labels)
      .filter((key) => key.startsWith(layerReference))
      .sort();
    if (references.length === 0) continue;
    for (const key of references) log('debug', 'Removing label', { digest, label: key });
    if (!dry) await client.content.setLabels(digest, Object.fromEntries(references.map((key) => [key, ''])));
  }
}

const references: Command = {
  name: 'references',
  usage: 'let go of compressed layers, which are not needed once unpacked',
  example: 'ctr content prune references --dry',
  flags: [
    { name: 'async', kind: 'bool', usage: 'do not wait for the collector' },
    { name: 'dry', kind: 'bool', usage: 'only tell what would be done' },
  ],
  run: withClient(async (client, invocation) => {
    const dry = invocation.bool('dry');
    await pruneLayers(client, dry);
    if (dry || invocation.bool('async')) return;
    // Deleting a lease with sync waits for the collector.
    const lease = await client.leases.create({ expireAfter: 3600 });
    await lease.delete({ sync: true });
  }),
};

export const prune: Command = {
  name: 'prune',
  usage: 'drop what is not needed',
  example: 'ctr content prune references',
  commands: [references],
};
