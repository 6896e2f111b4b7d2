import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { fillCritestImages, missingForImages } from '../lib/critest-images.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const critest = path.resolve(import.meta.dirname, '../../.cache/go-bin/critest');
const skip =
  (process.env['GANTRY_CRITEST'] ? false : 'it takes some minutes: set GANTRY_CRITEST=1') ||
  CriLab.missing() ||
  (existsSync(critest)
    ? false
    : 'critest is not in .cache/go-bin (npm test makes it with GANTRY_CRITEST=1 when Go is there)') ||
  missingForImages();

/** Specs that cannot pass here, whoever the runtime is, by a part of their names. */
const known = {
  'public image with digest should be pulled and removed': 'the image of that digest cannot be made again',
  'runtime should support MaskedPaths':
    'Debian’s busybox has ls in its shell, so that what is denied to ls is not seen',
};

describe('critest, whole', { skip }, () => {
  const temp = makeTempDir('critest');
  const lab = new CriLab(temp.path, { bridge: 'gantrycri1', subnet: '10.220.0.0/16', hostPorts: true });
  before(() => lab.start((registry) => fillCritestImages(path.join(temp.path, 'images'), registry)));
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  test('every spec passes that can', async () => {
    const endpoint = `unix://${lab.daemon.address}`;
    const result = await run(
      critest,
      ['--runtime-endpoint', endpoint, '--image-endpoint', endpoint, '--ginkgo.no-color'],
      { mayFail: true, timeoutMs: 550_000 },
    );
    const failed = [...result.stdout.matchAll(/^\s*\[(?:FAIL|PANICKED|TIMEDOUT)\] (.*)$/gm)].map(([, name]) => name!);
    const unknown = [...new Set(failed)].filter((name) => !Object.keys(known).some((part) => name.includes(part)));
    assert.deepEqual(unknown, [], result.stdout.slice(-20_000));
    const summary =
      /Ran (\d+) of \d+ Specs[\s\S]*?(\d+) Passed/.exec(result.stdout) ?? assert.fail(result.stdout.slice(-5000));
    assert.ok(Number(summary[2]) >= 100, `only ${summary[2]} of ${summary[1]} specs passed`);
    console.log(/^Ran \d+ of .*$/m.exec(result.stdout)?.[0], /^(?:FAIL|SUCCESS)! .*$/m.exec(result.stdout)?.[0]);
  });
});
