import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code } from '@gantry/api';
import { Introspection } from '@gantry/api/gen/services/introspection/v1/introspection_pb.js';
import { createClient, type GrpcTransport, grpcTransport } from '@gantry/rpc';
import { Client, credentials } from '@grpc/grpc-js';
import { TestDaemon } from '../lib/daemon.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const page = readFileSync(path.resolve(import.meta.dirname, '../../docs/compatibility.md'), 'utf8');
const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';

/** Rows of the page's tables under a heading: first cell, second cell, status. */
function rows(heading: string): { first: string; second: string; status: string }[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(heading));
  assert.ok(section, `the page has a part "${heading}"`);
  return [...section.matchAll(/^\| `([^`]+)` \| `([^`]+)` \| (done|not yet) \|/gm)].map((match) => ({
    first: match[1]!,
    second: match[2]!,
    status: match[3]!,
  }));
}

describe('docs/compatibility.md tells the truth', { skip }, () => {
  const temp = makeTempDir('compat');
  const daemon = new TestDaemon(temp.path);
  let transport: GrpcTransport;

  before(async () => {
    await daemon.start();
    transport = grpcTransport(daemon.address, { namespace: 'compat' });
  });
  after(async () => {
    await transport?.close();
    await daemon.stop();
    await temp.remove();
  });

  /** Calls a method with an empty message, whatever it is; answers the code it ends with. */
  async function codeOf(service: string, method: string): Promise<number> {
    const client = new Client(`unix:${daemon.address}`, credentials.createInsecure());
    const bytes = (value: Buffer): Buffer => value;
    try {
      return await new Promise<number>((resolve) => {
        // A server that streams answers headers or messages; one that is not there ends at once with UNIMPLEMENTED.
        const call = client.makeBidiStreamRequest(`/${service}/${method}`, bytes, bytes);
        const timer = setTimeout(() => resolve(Code.Ok), 1500);
        const done = (code: number): void => {
          clearTimeout(timer);
          resolve(code);
        };
        call.on('data', () => done(Code.Ok));
        call.on('error', (error: { code?: number }) => done(error.code ?? Code.Unknown));
        call.on('end', () => undefined);
        call.on('status', (status: { code: number }) => done(status.code));
        call.write(Buffer.alloc(0));
        call.end();
      });
    } finally {
      client.close();
    }
  }

  test('every gRPC method answers as the page says', async () => {
    const listed = rows('The daemon’s gRPC socket');
    assert.ok(listed.length > 110, `only ${listed.length} methods are listed`);
    const wrong: string[] = [];
    for (const { first: service, second: method, status } of listed) {
      const code = await codeOf(service, method);
      const built = code !== Code.Unimplemented;
      if (built !== (status === 'done'))
        wrong.push(`${service}/${method}: the page says ${status}, the daemon answered code ${code}`);
    }
    assert.deepEqual(wrong, []);
  });

  test('every plugin fares as the page says', async () => {
    const introspection = createClient(Introspection, transport);
    const { plugins } = await introspection.plugins({});
    const wrong: string[] = [];
    const listed = rows('Plugins');
    assert.ok(listed.length > 50);
    for (const { first: type, second: id, status } of listed) {
      const plugin = plugins.find((candidate) => candidate.type === type && candidate.id === id);
      const failed = plugin?.initErr && !plugin.initErr.message.includes('skip') && !type.includes('.server.');
      if (status === 'done' && (!plugin || failed))
        wrong.push(`${type} ${id}: said to be done, ${plugin?.initErr?.message ?? 'missing'}`);
      if (status === 'not yet' && plugin && !plugin.initErr)
        wrong.push(`${type} ${id}: is there, but the page says not yet`);
    }
    assert.deepEqual(wrong, []);
  });
});
