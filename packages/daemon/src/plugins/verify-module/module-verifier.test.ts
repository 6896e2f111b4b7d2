import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createLogger } from '../../core/log/log-writer.ts';
import { contractImage, imageVerifierContract } from '../../core/verification/image-verifier-contract.ts';
import { ModuleVerifier } from './module-verifier.ts';

const behaviours = {
  allow: 'export const verifyImage = ({ name, descriptor }) => ({ ok: true, reason: name + " " + descriptor.digest });',
  deny: "export default { async verifyImage() { return { ok: false, reason: 'denied by rule 7' }; } };",
  hang: 'export function verifyImage() { for (;;); }',
  crash: 'export function verifyImage() { process.exit(7); }',
  missing: 'export const somethingElse = 1;',
};

const quiet = createLogger({ write() {} });

imageVerifierContract('a module', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gantry-module-'));
  const made: ModuleVerifier[] = [];
  return {
    async make(behaviour) {
      const file = path.join(dir, `${behaviour}.mjs`);
      writeFileSync(file, behaviours[behaviour]);
      // Starting a thread takes a part of the time that an answer may take.
      const timeoutMs = behaviour === 'hang' ? 500 : 20_000;
      const verifier = new ModuleVerifier([{ name: 'm', file, timeoutMs, options: {} }], quiet);
      made.push(verifier);
      return verifier;
    },
    async close() {
      await Promise.all(made.map((verifier) => verifier.close()));
      rmSync(dir, { recursive: true });
    },
  };
});

describe('modules', () => {
  let dir: string;
  const { name, descriptor } = contractImage;
  const open: ModuleVerifier[] = [];
  const module = (source: string, options: { timeoutMs?: number; options?: unknown; file?: string } = {}) => {
    const { file = path.join(dir, 'm.mjs'), timeoutMs = 20_000 } = options;
    writeFileSync(file, source);
    const verifier = new ModuleVerifier([{ name: 'm', file, timeoutMs, options: options.options }], quiet);
    open.push(verifier);
    return verifier;
  };
  const judge = (verifier: ModuleVerifier) => verifier.verifyImage({ namespace: 'default' }, name, descriptor);

  before(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-module-'));
  });
  after(async () => {
    await Promise.all(open.map((verifier) => verifier.close()));
    rmSync(dir, { recursive: true });
  });

  test('options and imports of its own', async () => {
    writeFileSync(path.join(dir, 'rules.ts'), 'export const rule = (text: string): string => "rule " + text;');
    const verifier = module(
      "import { rule } from './rules.ts';\nexport const verifyImage = ({ options }) => ({ ok: options.yes, reason: rule('3') });",
      { options: { yes: true } },
    );
    assert.deepEqual(await judge(verifier), { ok: true, reason: 'm => rule 3' });
  });

  test('an endless loop of one call does not harm others, nor the next', async () => {
    const verifier = module(
      "export function verifyImage({ name }) { if (name === 'loop') for (;;); return { ok: true, reason: 'fine' }; }",
      { timeoutMs: 2000 },
    );
    const loops = Array.from({ length: 2 }, () =>
      assert.rejects(
        verifier.verifyImage({ namespace: 'default' }, 'loop', descriptor),
        /^StatusError: failed to call verifier m: module m gave no answer in 2000 ms$/,
      ),
    );
    assert.equal((await judge(verifier)).ok, true);
    await Promise.all(loops);
    assert.equal((await judge(verifier)).ok, true);
  });

  test('a thread serves many calls, one after the other, and leaves nothing behind in it', async () => {
    const warnings: Error[] = [];
    const warned = (warning: Error): void => void warnings.push(warning);
    process.on('warning', warned);
    const verifier = module(
      "import { threadId } from 'node:worker_threads';\nexport const verifyImage = () => ({ ok: true, reason: String(threadId) });",
    );
    const threads = new Set<string>();
    for (let call = 0; call < 15; call++) threads.add((await judge(verifier)).reason);
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', warned);
    assert.equal(threads.size, 1);
    assert.deepEqual(warnings, []);
  });

  test('more calls than threads take turns', async () => {
    const verifier = module('export const verifyImage = async () => ({ ok: true, reason: "x" });');
    const all = await Promise.all(Array.from({ length: 9 }, () => judge(verifier)));
    assert.ok(all.every(({ ok }) => ok));
  });

  test('an answer of the wrong shape, a throw and a syntax error block', async () => {
    const cases: [string, RegExp][] = [
      ['export const verifyImage = () => true;', /its answer is not \{ ok: boolean, reason: string \}/],
      ["export const verifyImage = () => ({ ok: 'yes' });", /its answer is not/],
      ["export const verifyImage = () => { throw new Error('boom'); };", /module m: boom/],
      ['export const verifyImage = () => ({ ok: true, reason: "x", extra: () => 1 });', /cannot be passed on/],
      ['export const verifyImage = (', /module m: /],
    ];
    for (const [source, message] of cases) await assert.rejects(judge(module(source)), message);
  });

  test('code that others could change is not run', async () => {
    const source = 'import "./other.mjs";\nexport const verifyImage = () => ({ ok: true, reason: "" });';
    const verifier = module(source);
    writeFileSync(path.join(dir, 'other.mjs'), '');
    chmodSync(path.join(dir, 'other.mjs'), 0o666);
    await assert.rejects(judge(verifier), /other\.mjs: not trusted: others may write to it \(mode 0666\)/);
    chmodSync(path.join(dir, 'm.mjs'), 0o777);
    await assert.rejects(judge(module(source)), /m\.mjs: not trusted/);
  });
});
