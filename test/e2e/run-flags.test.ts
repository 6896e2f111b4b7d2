// Ways to run that need more than an image and a name, and programs that come as an image: ours and containerd's own ctr.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages, busyboxLayer } from '../lib/images.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('flags of ctr run, and ctr install', { skip }, () => {
  const temp = makeTempDir('run-flags');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const image = 'x/busybox:1';
  const archive = path.join(temp.path, 'busybox.tar');
  const rootfs = path.join(temp.path, 'rootfs');

  before(async () => {
    const { busybox } = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    await run('skopeo', [
      'copy',
      '-q',
      '--insecure-policy',
      `oci:${busybox}:latest`,
      `oci-archive:${archive}:${image}`,
    ]);
    // A container's root that is nobody here has to get through to its files.
    chmodSync(temp.path, 0o711);
    mkdirSync(rootfs);
    busyboxLayer(rootfs);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  const wanted = ctrClients().filter(({ name }) => name === 'our ctr' || name === 'ctr 2.3.4');
  for (const client of wanted) describe(client.name, { skip: client.missing ?? false }, () => clientTests(client));

  function clientTests(client: CtrClient): void {
    const ctr = new CtrSession(client, daemon.address, client.own ? 'own' : 'theirs');

    test('a device by its CDI name', async () => {
      await ctr.ok('images', 'import', archive);
      // The directories of run time are the machine's: ctr has no flag for others.
      const name = `gantry-test-${process.pid}-${client.own ? 'own' : 'theirs'}`;
      const file = `/var/run/cdi/${name}.yaml`;
      mkdirSync('/var/run/cdi', { recursive: true });
      writeFileSync(
        file,
        `cdiVersion: 0.6.0
kind: example.com/${name}
devices:
  - name: zero
    containerEdits:
      env: [CDI=injected]
      deviceNodes: [{ path: /dev/nothing, hostPath: /dev/null }]
`,
      );
      try {
        const device = `example.com/${name}=zero`;
        const script = 'echo $CDI; ls -l /dev/nothing; echo x > /dev/nothing && echo written';
        const shown = await ctr.ok('run', '--rm', '--device', device, image, `cdi-${client.own}`, 'sh', '-c', script);
        assert.match(shown, /^injected\ncrw.* 1, +3 .*\/dev\/nothing\nwritten\n$/);
        const missing = await ctr.try('run', '--rm', '--device', `${device}x`, image, `cdi-${client.own}-x`, 'true');
        assert.notEqual(missing.code, 0);
        assert.match(missing.stderr, new RegExp(`unresolvable CDI devices ${device}x`));
      } finally {
        rmSync(file);
      }
    });

    test('programs are installed, and not over others unless told to', async () => {
      await ctr.ok('images', 'import', archive);
      const directory = path.join(temp.path, `install-${client.own}`);
      mkdirSync(directory);
      await ctr.ok('install', '--path', directory, image);
      assert.equal(statSync(path.join(directory, 'bin/busybox')).mode & 0o111, 0o111);
      assert.ok(!existsSync(path.join(directory, 'etc')), 'nothing but bin');
      const again = await ctr.try('install', '--path', directory, image);
      assert.equal(again.code, 1);
      assert.match(again.stderr, /cannot replace bin\/\w+ in /);
      await ctr.ok('install', '--replace', '--path', directory, image);
    });

    test('a directory is a root filesystem', async () => {
      const printed = await ctr.ok('run', '--rm', '--rootfs', rootfs, 'plain', '/bin/sh', '-c', 'echo in $(/bin/ls /)');
      assert.match(printed, /^in bin dev etc proc /);
    });

    test('user ids are mapped, by changing owners or by the snapshotter', async () => {
      const map = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536'];
      for (const how of [[], ['--remap-labels']]) {
        const args = ['run', '--rm', ...map, ...how, image, 'mapped', 'sh', '-c'];
        const printed = await ctr.ok(...args, 'cat /proc/self/uid_map; touch /x; ls -ln /bin/busybox /x');
        assert.match(printed, /^ *0 +100000 +65536$/m);
        assert.equal(printed.match(/ 0 +0 .* \/(bin\/busybox|x)$/gm)?.length, 2, printed);
      }
    });
  }
});
