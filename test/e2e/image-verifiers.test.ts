import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { eventually } from '../lib/processes.ts';
import { PullLab, program } from '../lib/pull-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';

describe('image verifiers', { skip }, () => {
  const lab = new PullLab('verifiers');
  const binDir = lab.at('verifiers');

  before(async () => {
    await lab.fill(['plain/app', 'denied/app', 'module/app', 'signed/app']);
    mkdirSync(binDir);
    writeFileSync(
      lab.at('verifier.mjs'),
      `export async function verifyImage({ name, descriptor, options }) {
         if (!name.includes(options.about)) return { ok: true, reason: 'not mine' };
         if (name.endsWith(':loop')) for (;;);
         return { ok: false, reason: 'the module does not like ' + descriptor.digest };
       }`,
    );
    await lab.startDaemon(`
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = '${binDir}'
  max_verifiers = 3
  per_verifier_timeout = '5s'
[plugins.'io.containerd.image-verifier.v1.module'.modules.taste]
  path = '${lab.at('verifier.mjs')}'
  timeout = '3s'
  options = { about = '/module/' }
[plugins.'io.containerd.image-verifier.v1.policy']
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/denied/**']
    action = 'deny'
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/signed/**']
    action = 'require-signature'
    keys = ['${lab.at('keys/release.pub')}']
`);
  });
  after(() => lab.close());

  for (const client of lab.clients) {
    describe(`by ${client.name}`, { skip: client.missing ?? false }, () => {
      let name = '';
      const blocked = (why: string): RegExp =>
        new RegExp(
          `ctr: .*image verifier bindir blocked pull of ${name} with digest ${lab.digest} for reason: verifier ${why}\\n`,
        );
      const unjudged = (why: string): RegExp =>
        new RegExp(
          `ctr: .*blocking pull of ${name} with digest ${lab.digest}: image verifier bindir returned error: failed to call verifier ${why}\\n`,
        );
      const runtime = '\\(runtime [\\d.]+[µm]?s\\)';

      before(() => {
        name = `${lab.registry.address}/plain/app:1`;
      });
      beforeEach(() => {
        rmSync(binDir, { recursive: true, force: true });
        mkdirSync(binDir);
      });

      test('no directory, no programs, and programs that say yes let images through', async () => {
        await lab.allowed(client, name);
        program(
          path.join(binDir, 'v1'),
          `echo "$@" > ${lab.at('args')}; cat > ${lab.at('input')}; echo fine; echo to the log >&2`,
        );
        await lab.allowed(client, name);
        const type = 'application/vnd.oci.descriptor.v1+json';
        assert.equal(
          readFileSync(lab.at('args'), 'utf8'),
          `-name ${name} -digest ${lab.digest} -stdin-media-type ${type}\n`,
        );
        assert.deepEqual(Object.keys(JSON.parse(readFileSync(lab.at('input'), 'utf8')) as object), [
          'mediaType',
          'digest',
          'size',
        ]);
        assert.match(lab.daemon.log(), /level=debug msg="to the log" .*image_verifier=v1 .*stream=stderr/);
        rmSync(binDir, { recursive: true });
        await lab.allowed(client, name);
      });

      test('a program that says no blocks, and its words reach the client', async () => {
        program(path.join(binDir, 'v0'), 'echo yes');
        program(path.join(binDir, 'v1'), 'echo denied by rule 7; exit 1');
        await lab.denied(client, name, blocked('v1 rejected image \\(exit code 1\\): denied by rule 7'));
        assert.match(lab.daemon.log(), /level=warning msg="Image verifier blocked pull"/);
      });

      test('more programs than max_verifiers: the first by name are asked', async () => {
        for (const verifier of ['a', 'b', 'c']) program(path.join(binDir, verifier), 'exit 0');
        program(path.join(binDir, 'd'), 'exit 1');
        await lab.allowed(client, name);
        program(path.join(binDir, 'aa'), 'echo early; exit 9');
        await lab.denied(client, name, blocked('aa rejected image \\(exit code 9\\): early'));
      });

      test('one that is slow, crashes or cannot be started blocks', async () => {
        const file = path.join(binDir, 'v1');
        program(file, 'sleep 600');
        await lab.denied(client, name, unjudged(`v1 ${runtime}: waiting on command to exit: signal: killed`));
        program(file, 'kill -SEGV $$');
        await lab.denied(
          client,
          name,
          unjudged(`v1 ${runtime}: waiting on command to exit: signal: segmentation fault`),
        );
        chmodSync(file, 0o644);
        await lab.denied(
          client,
          name,
          unjudged(`v1 ${runtime}: starting process: fork/exec ${file}: permission denied`),
        );
        chmodSync(file, 0o777);
        await lab.denied(
          client,
          name,
          unjudged(`v1 ${runtime}: starting process: ${file}: not trusted: others may .*`),
        );
      });

      test('the digest that was judged is pulled, wherever the tag points to meanwhile', async () => {
        const moving = `${lab.registry.address}/moving/app-${lab.clients.indexOf(client)}:1`;
        await lab.copy(name, moving);
        const flags = '-q --insecure-policy --src-tls-verify=false --dest-tls-verify=false --format v2s2';
        program(path.join(binDir, 'v1'), `skopeo copy ${flags} docker://${name} docker://${moving} >&2 || exit 1`);
        const { code, stderr } = await lab.pull(client, moving);
        assert.equal(code, 0, stderr);
        const session = lab.session(client);
        const row = (await session.ok('images', 'ls')).split('\n').find((line) => line.startsWith(moving));
        assert.match(row ?? '', new RegExp(` ${lab.digest} `));
        await session.ok('images', 'rm', moving);
        // And it did move.
        rmSync(path.join(binDir, 'v1'));
        await lab.pull(client, moving);
        assert.ok(!(await session.ok('images', 'ls')).includes(`${moving} application/vnd.oci`));
        await session.ok('images', 'rm', moving);
      });

      test('a module denies, and is given up when it loops', async () => {
        await lab.denied(
          client,
          `${lab.registry.address}/module/app:1`,
          new RegExp(
            `verifier module blocked pull of .*: verifier taste rejected image: the module does not like ${lab.digest}\n`,
          ),
        );
        await lab.copy(`${lab.registry.address}/module/app:1`, `${lab.registry.address}/module/app:loop`);
        await lab.denied(
          client,
          `${lab.registry.address}/module/app:loop`,
          /failed to call verifier taste: module taste gave no answer in 3000 ms/,
        );
        await lab.allowed(client, name);
      });

      test('the policy denies by repository and requires signatures', async () => {
        await lab.denied(
          client,
          `${lab.registry.address}/denied/app:1`,
          /image verifier policy blocked pull of .* for reason: rule 1 \(\*\/denied\/\*\*\) denies it\n/,
        );
        mkdirSync(lab.at('keys'), { recursive: true });
        await lab.denied(client, `${lab.registry.address}/signed/app:1`, /returned error: key .*release\.pub: ENOENT/);
      });
    });
  }

  test('a verifier that a killed daemon left running is ended by the next', async (context) => {
    const client = lab.clients.find(({ missing }) => missing === undefined);
    if (!client) return context.skip('no client is there');
    mkdirSync(binDir, { recursive: true });
    rmSync(lab.at('pid'), { force: true });
    program(
      path.join(binDir, 'v1'),
      `echo $$ > ${lab.at('pid')}.new; mv ${lab.at('pid')}.new ${lab.at('pid')}; sleep 600`,
    );
    const pulling = lab.pull(client, `${lab.registry.address}/plain/app:1`);
    const pid = await eventually('the verifier runs', () =>
      existsSync(lab.at('pid')) ? readFileSync(lab.at('pid'), 'utf8').trim() : undefined,
    );
    await lab.daemon.kill();
    assert.equal((await pulling).code, 1);
    rmSync(binDir, { recursive: true });
    assert.ok(existsSync(`/proc/${pid}/stat`));
    await lab.daemon.start();
    const isGone = (): true | undefined => {
      const state = existsSync(`/proc/${pid}/stat`)
        ? readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)
        : 'X';
      return /^[XZ]/.test(state ?? '') || undefined;
    };
    await eventually('the verifier is gone', isGone);
    await lab.allowed(client, `${lab.registry.address}/plain/app:1`);
  });
});
