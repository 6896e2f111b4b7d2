import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { digestOf } from '@gantry/oci';
import { makeByMkfs } from './mkfs-erofs.ts';

describe('mkfs.erofs', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-mkfs-'));
  const searched = process.env.PATH;
  const { signal } = new AbortController();
  const settings = { uuid: 'u-u', compressors: 'lz4hc,12', mkfsOptions: ['-Ededupe'], signal };

  /** Puts a program of that name where it is looked for. */
  function program(text: string): void {
    const bin = path.join(directory, 'bin');
    mkdirSync(bin, { recursive: true });
    writeFileSync(path.join(bin, 'mkfs.erofs'), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    process.env.PATH = `${bin}:${searched}`;
  }

  async function* layer(): AsyncGenerator<Uint8Array> {
    yield gzipSync('a tar');
  }

  before(() =>
    program(`[ "$1" = --help ] && { echo ' --tar=X'; exit 1; }\nfor last; do :; done\n{ echo "$@"; cat; } >"$last"`),
  );

  after(() => {
    process.env.PATH = searched;
    rmSync(directory, { recursive: true });
  });

  it('gets the layer without its compression, and containerd’s arguments', async () => {
    const file = path.join(directory, 'image');
    assert.equal(await makeByMkfs(layer(), { ...settings, file }), digestOf('a tar'));
    assert.equal(
      readFileSync(file, 'utf8'),
      `--tar=f --aufs --quiet -Enoinline_data -b4096 -zlz4hc,12 -C 65536 -Ededupe -U u-u ${file}\na tar`,
    );
  });

  it('is told apart from one that is too old, and heard when it fails', async () => {
    const file = path.join(directory, 'image2');
    program(`[ "$1" = --help ] && { echo ' --tar=X'; exit 0; }\ncat >/dev/null; echo 'no such compressor' >&2; exit 3`);
    await assert.rejects(makeByMkfs(layer(), { ...settings, file }), /failed with 3: no such compressor/);
    program(`echo 'usage: mkfs.erofs FILE DIRECTORY'; exit 1`);
    await assert.rejects(makeByMkfs(layer(), { ...settings, file }), /need mkfs\.erofs 1\.8 or later/);
    process.env.PATH = directory;
    await assert.rejects(makeByMkfs(layer(), { ...settings, file }), /which is not there/);
  });
});
