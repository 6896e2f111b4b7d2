import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { makeBtrfs, missingBtrfs } from '../../packages/daemon/src/plugins/snapshot-btrfs/testing-filesystem.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const top = path.resolve(import.meta.dirname, '../..');
const go = ['/usr/local/go/bin/go', '/usr/bin/go'].find((file) => existsSync(file));
const fuse = path.join(top, '.cache/go-bin/containerd-fuse-overlayfs-grpc');

function missing(): string | false {
  if (!process.env['GANTRY_SUITES']) return 'builds and runs for minutes: only with GANTRY_SUITES=1';
  if (!go) return 'Go is not installed';
  return missingBtrfs();
}

/** Nothing the suites make is leased, so nothing may be collected. */
const withoutCollections = `[plugins.'io.containerd.gc.v1.scheduler']
  startup_delay = '100h'
  pause_threshold = 0.0
  mutation_threshold = 0
`;

describe('containerd’s own test suites', { skip: missing(), timeout: 1_200_000 }, () => {
  const temp = makeTempDir('suites');
  const program = path.join(top, '.cache/containerd-suites');
  const socket = path.join(temp.path, 'fuse.sock');
  let filesystem: ReturnType<typeof makeBtrfs>;
  let second: TestDaemon;
  let first: TestDaemon;
  let snapshotter: ChildProcess | undefined;
  const names = ['overlayfs', 'native', 'btrfs', 'blockfile'];

  before(async () => {
    mkdirSync(path.dirname(program), { recursive: true });
    const cwd = path.join(top, 'test/containerd-suites');
    await run(go!, ['test', '-c', '-o', program, '.'], { cwd, timeoutMs: 600_000, env: { CGO_ENABLED: '0' } });
    filesystem = makeBtrfs();
    // As the suite expects it: empty.
    const scratch = path.join(temp.path, 'scratch.ext4');
    writeFileSync(scratch, '');
    truncateSync(scratch, 32 << 20);
    const mount = path.join(temp.path, 'mnt');
    const steps = `mkfs.ext4 -q ${scratch}; mkdir ${mount}; mount -o loop ${scratch} ${mount}; rmdir ${mount}/lost+found; umount ${mount}`;
    await run('sh', ['-ec', steps]);
    if (existsSync(fuse) && existsSync('/dev/fuse')) {
      snapshotter = spawn(fuse, [socket, path.join(temp.path, 'fuse')], { stdio: 'ignore' });
      names.push('fuse-overlayfs');
    }
    second = new TestDaemon(
      path.join(temp.path, '2'),
      `${withoutCollections}
[plugins.'io.containerd.snapshotter.v1.btrfs']
  root_path = '${filesystem.directory}'
[plugins.'io.containerd.snapshotter.v1.blockfile']
  scratch_file = '${scratch}'
[proxy_plugins.fuse-overlayfs]
  type = 'snapshot'
  address = '${socket}'
`,
    );
    await second.start();
    const erofs = await run(bin.ctr, ['-a', second.address, 'plugins', 'ls', 'id==erofs']);
    if (/snapshotter\.v1 +erofs .* ok/.test(erofs.stdout)) names.push('erofs');
    first = new TestDaemon(
      path.join(temp.path, '1'),
      `${withoutCollections}
[proxy_plugins.far]
  type = 'content'
  address = '${second.address}'
`,
      `disabled_plugins = ['io.containerd.content.v1.content']`,
    );
    await first.start();
    if (snapshotter) await eventually('the snapshotter listens', () => (existsSync(socket) ? true : undefined));
  });
  after(async () => {
    await first?.stop();
    await second?.stop();
    if (snapshotter) await endProcess(snapshotter);
    filesystem?.remove();
    await temp.remove();
  });

  const suite = async (name: string, daemon: TestDaemon, most: number): Promise<void> => {
    const env = { SOCKET: daemon.address, SNAPSHOTTERS: names.join(',') };
    const { code, stdout } = await run(program, ['-test.run', name, '-test.v'], {
      env,
      mayFail: true,
      timeoutMs: 900_000,
    });
    const results = stdout.split('\n').filter((line) => /^\s+--- (PASS|FAIL)/.test(line));
    const failed = results.filter((line) => line.includes('FAIL'));
    assert.deepEqual(failed, [], stdout.slice(-4000));
    assert.equal(code, 0);
    assert.ok(results.length >= most, `${results.length} tests`);
  };

  test('snapshotters, through the daemon', () => suite('TestSnapshotters', second, 20 * names.length));
  test('content store', () => suite('TestContent', second, 12));
  test('content store of another daemon behind a proxy', () => suite('TestContent', first, 12));
});
