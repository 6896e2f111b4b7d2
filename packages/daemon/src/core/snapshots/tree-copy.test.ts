import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstat, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { removeAllBeneath } from '@gantry/mount';
import { AT_FDCWD, close, lgetxattr, lsetxattr, mkdirat, O, openat } from '@gantry/sys';
import { copyTree } from './tree-copy.ts';
import { diskUsage } from './tree-walk.ts';

const skip = process.getuid?.() === 0 ? false : 'owners, devices and trusted attributes need root';

describe('copy of a directory tree', { skip }, () => {
  it('keeps everything', async () => {
    const dir = await mkdtemp(path.join(tmpdir(), 'gantry-copy-'));
    const from = path.join(dir, 'from');
    const to = path.join(dir, 'to');
    await mkdir(from);
    await mkdir(to);
    execFileSync('sh', ['-ec', setUp], { cwd: from });
    // A name that is no text, and attributes with bytes that are none.
    await writeFile(Buffer.concat([Buffer.from(`${from}/`), Buffer.from([0xff, 0xfe])]), 'bytes');
    lsetxattr(path.join(from, 'file'), 'user.bytes', Buffer.from([0, 255, 1]));
    lsetxattr(path.join(from, 'sub'), 'trusted.overlay.opaque', Buffer.from('y'));
    lsetxattr(path.join(from, 'dangling'), 'trusted.link', Buffer.from('z'));
    const sparse = await open(path.join(from, 'sparse'), 'w');
    await sparse.write(Buffer.from('end'), 0, 3, 50 << 20);
    await sparse.close();

    copyTree(from, to);

    const list = (root: string) =>
      execFileSync('find', ['.', '-printf', '%P|%y|%m|%U|%G|%T@|%n|%l|%s\\n'], { cwd: root, encoding: 'latin1' })
        .split('\n')
        .map((line) => line.replace(/^(.*\|d\|.*)\|\d+$/, '$1'))
        .sort();
    assert.deepEqual(list(to), list(from));
    assert.deepEqual(lgetxattr(path.join(to, 'file'), 'user.bytes'), Buffer.from([0, 255, 1]));
    assert.deepEqual(lgetxattr(path.join(to, 'sub'), 'trusted.overlay.opaque'), Buffer.from('y'));
    assert.deepEqual(lgetxattr(path.join(to, 'dangling'), 'trusted.link'), Buffer.from('z'));
    assert.equal(await readFile(path.join(to, 'sub/deep/file'), 'utf8'), 'deep');
    assert.equal((await lstat(path.join(to, 'file'))).ino, (await lstat(path.join(to, 'sub/hard'))).ino);
    assert.equal((await lstat(path.join(to, 'device'))).rdev, (await lstat(path.join(from, 'device'))).rdev);
    assert.ok((await lstat(path.join(to, 'sparse'))).blocks < 100);
    assert.equal(diskUsage(to).inodes, diskUsage(from).inodes);
    assert.ok(diskUsage(to).size < 1 << 20);
    await rm(dir, { recursive: true });
  });

  const setUp = `
    echo data > file; chmod 4755 file; touch -d '2001-02-03 04:05:06.789' file
    mkdir -p sub/deep; ln file sub/hard; printf deep > sub/deep/file
    ln -s /nowhere dangling; chown -h 7:8 dangling
    mknod device b 7 200; mkfifo fifo; chmod 600 fifo; chown 1:2 fifo
    chown 3:4 sub; chmod 1777 sub; touch -d '2002-02-03 04:05:06.000000001' sub; touch -hd '2003-01-01' dangling
    : > empty
  `;
});

describe('disk usage', () => {
  it('walks trees that are deeper than a path is long', async () => {
    const dir = await mkdtemp(path.join(tmpdir(), 'gantry-usage-'));
    let fd = openat(AT_FDCWD, dir, O.PATH | O.DIRECTORY);
    for (let depth = 0; depth < 600; depth++) {
      mkdirat(fd, 'some-name');
      const child = openat(fd, 'some-name', O.PATH | O.DIRECTORY);
      close(fd);
      fd = child;
    }
    close(fd);
    assert.equal(diskUsage(dir).inodes, 601);
    await removeAllBeneath(dir);
  });

  it('counts inodes once and follows no link', async () => {
    const dir = await mkdtemp(path.join(tmpdir(), 'gantry-usage-'));
    execFileSync('sh', ['-ec', 'echo x > a; ln a b; ln -s / root; mkdir d; ln a d/c'], { cwd: dir });
    const { inodes, size } = diskUsage(dir);
    assert.equal(inodes, 4);
    assert.equal(
      size,
      512 * Number(execFileSync('du', ['-s', '--block-size=512', dir], { encoding: 'utf8' }).split('\t')[0]),
    );
    await rm(dir, { recursive: true });
  });
});
