import { readFileSync } from 'node:fs';
import { Code, formatTime, hasCode, jsonAny, plainAny, StatusError, TypeUrl } from '@gantry/client';
import { parseJson } from '@gantry/oci';
import type { Command } from '../command.ts';
import { forEachName, print, printJson, printTable } from '../output.ts';
import { withClient } from '../session.ts';
import { narrow } from '../table.ts';
import { namespaceDefault } from '../unpack.ts';

const run: Command = {
  name: 'run',
  aliases: ['create', 'c', 'r'],
  usage: 'run a sandbox',
  description: 'The file is a runtime spec for the controller, which is that of the namespace’s default.',
  argsUsage: '[flags] <pod-config.json> <sandbox-id>',
  example: 'ctr sandboxes run pod.json s1',
  flags: [{ name: 'runtime', kind: 'string', usage: 'name of the runtime', default: 'io.containerd.runc.v2' }],
  run: withClient(async (client, invocation) => {
    const file = invocation.argument(0, 'pod config');
    const id = invocation.argument(1, 'sandbox id');
    const text = readFileSync(file, 'utf8');
    try {
      parseJson(text);
    } catch (reason) {
      throw new Error(`failed to parse sandbox config: ${(reason as Error).message}`);
    }
    const sandboxer = await namespaceDefault(client, 'containerd.io/defaults/sandboxer', 'shim');
    const runtime = { name: invocation.string('runtime') };
    const sandbox = { id, runtime, sandboxer, spec: jsonAny(TypeUrl.RuntimeSpec, text) };
    await client.sandboxes.create(sandbox);
    try {
      await client.sandboxes.start(sandbox);
    } catch (reason) {
      // Nothing runs, so nothing is to be said to be there.
      await client.sandboxes.shutdown(id, { sandboxer }).catch(() => undefined);
      await client.sandboxes.delete(id).catch(() => undefined);
      throw StatusError.wrap(reason, `failed to start sandbox with ${sandboxer} sandboxer`);
    }
    print(`${id}\n`);
  }),
};

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the sandboxes',
  example: 'ctr sandboxes ls',
  flags: [{ name: 'filters', kind: 'strings', usage: 'only those that fit one of these' }],
  run: withClient(async (client, invocation) => {
    const sandboxes = await client.sandboxes.list(invocation.strings('filters'));
    printTable(
      [
        ['ID', 'CREATED', 'RUNTIME', ''],
        ...sandboxes.map(({ id, createdAt, runtime }) => [
          id,
          createdAt ? formatTime({ seconds: createdAt.seconds, nanos: 0 }) : '',
          runtime.name,
          '',
        ]),
      ],
      narrow,
    );
  }),
};

const remove: Command = {
  name: 'remove',
  aliases: ['rm'],
  usage: 'remove sandboxes',
  argsUsage: '[flags] <id> [<id>, ...]',
  example: 'ctr sandboxes rm s1',
  flags: [{ name: 'force', aliases: ['f'], kind: 'bool', usage: 'remove it even if it cannot be stopped' }],
  run: withClient(async (client, invocation) => {
    invocation.argument(0, 'sandbox id');
    const force = invocation.bool('force');
    return forEachName(invocation.args, async (id) => {
      const { sandboxer } = await client.sandboxes.get(id);
      try {
        await client.sandboxes.stop(id, { sandboxer });
        await client.sandboxes.shutdown(id, { sandboxer });
      } catch (reason) {
        // One that is gone, with the machine's last boot say, leaves a record only.
        if (!force && !hasCode(reason, Code.NotFound)) throw reason;
      }
      await client.sandboxes.delete(id);
      print(`${id}\n`);
    });
  }),
};

const info: Command = {
  name: 'info',
  aliases: ['i'],
  usage: 'print all there is to know of a sandbox',
  argsUsage: '<id>',
  example: 'ctr sandboxes info s1',
  run: withClient(async (client, invocation) => {
    const sandbox = await client.sandboxes.get(invocation.argument(0, 'sandbox id'));
    const time = (moment: typeof sandbox.createdAt) => (moment ? formatTime(moment) : '0001-01-01T00:00:00Z');
    const { options } = sandbox.runtime;
    printJson({
      ID: sandbox.id,
      Labels: sandbox.labels,
      Runtime: {
        Name: sandbox.runtime.name,
        Options: options ? { type_url: options.typeUrl, value: Buffer.from(options.value).toString('base64') } : null,
      },
      Spec: (sandbox.spec && plainAny(sandbox.spec)) ?? null,
      Sandboxer: sandbox.sandboxer,
      CreatedAt: time(sandbox.createdAt),
      UpdatedAt: time(sandbox.updatedAt),
      Extensions: Object.fromEntries(
        Object.entries(sandbox.extensions).map(([name, any]) => [
          name,
          plainAny(any) ?? { type_url: any.typeUrl, value: Buffer.from(any.value).toString('base64') },
        ]),
      ),
    });
  }),
};

export const sandboxes: Command = {
  name: 'sandboxes',
  aliases: ['sandbox', 'sb', 's'],
  usage: 'manage sandboxes',
  example: 'ctr sandboxes ls',
  commands: [run, list, remove, info],
};
