import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { createLogger } from '../../core/log/log-writer.ts';
import { ProgramRunner } from '../../core/programs/program-runner.ts';
import { contractImage, imageVerifierContract } from '../../core/verification/image-verifier-contract.ts';
import { BindirVerifier } from './bindir-verifier.ts';

function program(file: string, script: string): void {
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

const behaviours = {
  allow: 'echo "$2 $4"',
  deny: 'echo denied by rule 7; exit 1',
  hang: 'while :; do sleep 60; done',
  crash: 'kill -SEGV $$',
};

imageVerifierContract('a program', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gantry-bindir-'));
  return {
    async make(behaviour) {
      const binDir = path.join(dir, behaviour);
      mkdirSync(binDir, { recursive: true });
      const file = path.join(binDir, 'v');
      if (behaviour === 'missing') writeFileSync(file, 'no program', { mode: 0o644 });
      else program(file, behaviours[behaviour]);
      const log = createLogger({ write() {} });
      return new BindirVerifier({ binDir, maxVerifiers: 10, timeoutMs: 400, programs: ProgramRunner.open(), log });
    },
    async close() {
      rmSync(dir, { recursive: true });
    },
  };
});

describe('bindir', () => {
  let dir: string;
  let binDir: string;
  let log: string[] = [];
  const { name, descriptor } = contractImage;
  const judge = (options: { maxVerifiers?: number; timeoutMs?: number } = {}) =>
    new BindirVerifier({
      binDir,
      maxVerifiers: 10,
      timeoutMs: 10_000,
      programs: ProgramRunner.open(),
      log: createLogger({ level: 'debug', write: (line) => log.push(line) }),
      ...options,
    }).verifyImage({ namespace: 'default' }, name, descriptor);

  before(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-bindir-'));
    binDir = path.join(dir, 'bin');
  });
  beforeEach(() => {
    rmSync(binDir, { recursive: true, force: true });
    mkdirSync(binDir);
    log = [];
  });
  after(() => rmSync(dir, { recursive: true }));

  test('no directory and no programs allow', async () => {
    assert.deepEqual(await judge(), { ok: true, reason: `no image verifier binaries found in ${binDir}` });
    rmSync(binDir, { recursive: true });
    assert.deepEqual(await judge(), { ok: true, reason: `image verifier directory ${binDir} does not exist` });
  });

  test('arguments, input and inheritance are as containerd has them', async () => {
    program(
      path.join(binDir, 'v1'),
      `echo "$@" > ${dir}/args; cat > ${dir}/input; ls /proc/self/fd > ${dir}/fds; echo to the log >/dev/stderr; echo fine >/dev/stdout`,
    );
    assert.deepEqual(await judge(), { ok: true, reason: 'v1 => fine' });
    assert.equal(
      readFileSync(path.join(dir, 'args'), 'utf8'),
      `-name ${name} -digest ${descriptor.digest} -stdin-media-type application/vnd.oci.descriptor.v1+json\n`,
    );
    assert.equal(
      readFileSync(path.join(dir, 'input'), 'utf8'),
      `{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"${descriptor.digest}","size":304}\n`,
    );
    // 3 is the directory that ls reads.
    assert.equal(readFileSync(path.join(dir, 'fds'), 'utf8'), '0\n1\n2\n3\n');
    assert.match(log.join(''), /level=debug msg="to the log" image_verifier=v1 stream=stderr/);
  });

  test('the first by name are asked, one no is enough', async () => {
    for (const verifier of ['c', 'a', 'b']) program(path.join(binDir, verifier), `echo ${verifier} says yes`);
    program(path.join(binDir, 'd'), 'echo no; exit 3');
    assert.deepEqual(await judge({ maxVerifiers: 3 }), {
      ok: true,
      reason: 'a => a says yes, b => b says yes, c => c says yes',
    });
    assert.match(log.join(''), /level=warning msg="image verifiers are being skipped since directory .* has 4 entries/);
    assert.deepEqual(await judge({ maxVerifiers: 0 }), { ok: true, reason: '' });
    const no = { ok: false, reason: 'verifier d rejected image (exit code 3): no' };
    assert.deepEqual(await judge(), no);
    assert.deepEqual(await judge({ maxVerifiers: -1 }), no);
  });

  test('what cannot be started blocks with the reason', async () => {
    const file = path.join(binDir, 'v');
    const cases: [() => void, RegExp][] = [
      [() => writeFileSync(file, 'x'), /starting process: fork\/exec .*\/v: permission denied$/],
      [() => writeFileSync(file, '#!/nonexistent\n', { mode: 0o755 }), /: no such file or directory$/],
      [() => writeFileSync(file, 'x', { mode: 0o755 }), /fork\/exec .*: exec format error$/],
      [() => symlinkSync('/nonexistent', file), /fork\/exec .*: no such file or directory$/],
      [() => mkdirSync(file), /not a regular file$/],
    ];
    for (const [make, message] of cases) {
      make();
      await assert.rejects(judge(), (error: Error) => {
        assert.match(error.message, /^failed to call verifier v \(runtime [\d.]+(?:µ|m)?s\): starting process: /);
        assert.match(error.message, message);
        return true;
      });
      rmSync(file, { recursive: true });
    }
  });

  test('only programs that root alone can change are run', {
    skip: process.getuid?.() !== 0 && 'needs root',
  }, async () => {
    const file = path.join(binDir, 'v');
    program(file, 'exit 0');
    symlinkSync('/bin/true', path.join(binDir, 'link'));
    assert.deepEqual(await judge(), { ok: true, reason: 'link => , v => ' });
    chmodSync(file, 0o777);
    await assert.rejects(judge(), /v: not trusted: others may write to it \(mode 0777\)/);
    chmodSync(file, 0o755);
    chownSync(file, 1000, 1000);
    await assert.rejects(judge(), /v: not trusted: it belongs to user 1000, not to root/);
    chownSync(file, 0, 0);
    chmodSync(binDir, 0o777);
    await assert.rejects(judge(), /bin: not trusted: others may write to it/);
  });

  test('what is killed or keeps its output open too long blocks, and nothing of its group is left', async () => {
    const file = path.join(binDir, 'v');
    program(file, `echo hanging >&2; sleep 600 & echo $! > ${dir}/pid; sleep 600`);
    await assert.rejects(judge({ timeoutMs: 1500 }), /waiting on command to exit: signal: killed$/);
    assert.match(log.join(''), /msg=hanging|msg="hanging"/);
    program(file, `sleep 600 & echo $! > ${dir}/pid2`);
    await assert.rejects(judge({ timeoutMs: 1500 }), /waiting on command to exit: context deadline exceeded$/);
    program(file, `sleep 600 >/dev/null 2>&1 & echo $! > ${dir}/pid3`);
    assert.equal((await judge()).ok, true);
    for (const pid of ['pid', 'pid2', 'pid3'].map((from) => readFileSync(path.join(dir, from), 'utf8').trim())) {
      const state = () => {
        try {
          return /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
        } catch {
          return 'gone';
        }
      };
      // A killed process may need a moment, and stays a zombie where nobody collects orphans.
      for (let tries = 0; !['Z', 'X', 'gone'].includes(state() ?? '') && tries < 200; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      assert.match(state() ?? '', /^(?:Z|X|gone)$/);
    }
  });

  test('long output is cut as containerd does', async () => {
    program(path.join(binDir, 'v'), 'yes | head -c 40000; yes err | head -c 200000 >&2; exit 2');
    const { ok, reason } = await judge();
    assert.equal(ok, false);
    assert.equal(
      reason.length,
      'verifier v rejected image (exit code 2): '.length + 32767 + '(stdout truncated)'.length,
    );
    assert.match(reason, /y\(stdout truncated\)$/);
    assert.match(log.join(''), /previous logs may be truncated/);
  });

  test('a program that does not read its input may still answer', async () => {
    program(path.join(binDir, 'v'), 'exec <&-; echo ok');
    const big = { ...descriptor, annotations: { x: 'y'.repeat(300_000) } };
    const verifier = new BindirVerifier({
      binDir,
      maxVerifiers: 1,
      timeoutMs: 10_000,
      programs: ProgramRunner.open(),
      log: createLogger({ write() {} }),
    });
    assert.deepEqual(await verifier.verifyImage({ namespace: 'default' }, name, big), { ok: true, reason: 'v => ok' });
  });
});
