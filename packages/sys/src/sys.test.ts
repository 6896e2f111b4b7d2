import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as sys from './index.ts';

const root = process.geteuid?.() === 0 ? false : 'needs root';

function temporary(t: { after(fn: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'gantry-sys-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function contents(fd: number): string {
  const parts: Buffer[] = [];
  for (;;) {
    const part = Buffer.alloc(4096);
    const length = readSync(fd, part);
    if (length === 0) return Buffer.concat(parts).toString();
    parts.push(part.subarray(0, length));
  }
}

/** Runs a program with its output in a pipe and gives both. */
async function run(options: sys.SpawnOptions): Promise<{ out: string; exit: sys.Exit }> {
  const [reader, writer] = sys.pipe2();
  const child = sys.spawn({ ...options, stdio: [null, writer, writer] });
  sys.close(writer);
  const exit = await sys.waitExit(child);
  const out = contents(reader);
  sys.close(reader);
  return { out, exit };
}

test('openat2 keeps links inside the root', (t) => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'inside'), 'mine');
  const fd = sys.openat(sys.AT_FDCWD, dir, sys.O.PATH | sys.O.DIRECTORY);
  t.after(() => sys.close(fd));
  sys.symlinkat('/inside', fd, 'link');
  sys.symlinkat('../../../../../../etc/passwd', fd, 'escape');
  const file = sys.openInRoot(fd, 'link', sys.O.RDONLY);
  assert.equal(sys.readFd(file).toString(), 'mine');
  sys.close(file);
  assert.throws(() => sys.openInRoot(fd, 'escape', sys.O.RDONLY), { code: 'ENOENT', syscall: 'openat2' });
  assert.throws(() => sys.openat2(fd, '../x', { resolve: sys.RESOLVE.BENEATH }), { code: 'EXDEV' });
  assert.throws(() => sys.openat(fd, 'a\0b', 0), { code: 'EINVAL' });
});

test('names, times, owners and types by descriptor', { skip: root }, (t) => {
  const dir = temporary(t);
  const fd = sys.openat(sys.AT_FDCWD, dir, sys.O.RDONLY | sys.O.DIRECTORY);
  t.after(() => sys.close(fd));
  const odd = Buffer.from([0xff, 0xfe, 0x41]);
  sys.mkdirat(fd, odd, 0o700);
  sys.mknodat(fd, 'dev', sys.S.IFCHR | 0o600, sys.makedev(1, 3));
  sys.mkfifo(join(dir, 'fifo'), 0o600);
  sys.linkat(fd, 'fifo', fd, 'again');
  sys.renameat2(fd, 'again', fd, 'third', sys.RENAME.NOREPLACE);
  assert.throws(() => sys.renameat2(fd, 'third', fd, 'dev', sys.RENAME.NOREPLACE), { code: 'EEXIST' });
  sys.fchownat(fd, 'dev', 5, 6);
  sys.fchmodat(fd, 'dev', 0o640);
  sys.utimensat(fd, 'dev', { seconds: 1n, nanos: 2 }, { seconds: -5n, nanos: 999_999_999 });
  const stat = sys.fstatat(fd, 'dev');
  assert.deepEqual([stat.uid, stat.gid, stat.mode, stat.rdevMajor, stat.rdevMinor], [5, 6, sys.S.IFCHR | 0o640, 1, 3]);
  assert.deepEqual(
    [stat.atime, stat.mtime],
    [
      { seconds: 1n, nanos: 2 },
      { seconds: -5n, nanos: 999_999_999 },
    ],
  );
  assert.equal(sys.fstatat(fd, 'third').nlink, 2);
  const names = sys.readdirFd(fd);
  assert.equal(names.find((entry) => entry.name.equals(odd))?.type, sys.DT.DIR);
  assert.deepEqual(names.map((entry) => entry.type).sort(), [sys.DT.FIFO, sys.DT.FIFO, sys.DT.CHR, sys.DT.DIR]);
  sys.unlinkat(fd, odd, sys.AT.REMOVEDIR);
  assert.equal(sys.readdirFd(sys.openat(fd, '.', sys.O.RDONLY)).length, 3);
});

test('extended attributes may hold any bytes', { skip: root }, (t) => {
  const file = join(temporary(t), 'file');
  writeFileSync(file, '');
  const value = Buffer.from([0, 255, 1]);
  sys.lsetxattr(file, 'trusted.gantry', value);
  assert.deepEqual(sys.lgetxattr(file, 'trusted.gantry'), value);
  assert.equal(sys.lgetxattr(file, 'trusted.none'), undefined);
  assert.ok(sys.llistxattr(file).some((name) => name.toString() === 'trusted.gantry'));
  assert.throws(() => sys.lsetxattr(file, 'nonsense', value), { code: 'ENOTSUP' });
});

test('hundreds of calls off the main thread wait for each other', async (t) => {
  const directory = temporary(t);
  const fd = sys.openat(sys.AT_FDCWD, directory, sys.O.RDONLY | sys.O.DIRECTORY);
  t.after(() => sys.close(fd));
  await Promise.all(Array.from({ length: 1000 }, () => sys.fsync(fd)));
  await assert.rejects(Promise.all(Array.from({ length: 1000 }, () => sys.fallocateAsync(fd, 0, 0, 1))), (error) =>
    sys.hasErrno(error, 'EBADF', 'EISDIR', 'ENODEV'),
  );
});

test('names are removed off the main thread, whatever bytes they are of, and links are not followed', async (t) => {
  const directory = temporary(t);
  const fd = sys.openat(sys.AT_FDCWD, directory, sys.O.RDONLY | sys.O.DIRECTORY);
  t.after(() => sys.close(fd));
  const names = Array.from({ length: 600 }, (_, number) =>
    Buffer.from([0xff, 0x41 + (number % 26), ...Buffer.from(String(number))]),
  );
  for (const name of names) sys.close(sys.openat(fd, name, sys.O.WRONLY | sys.O.CREAT, 0o600));
  await Promise.all(names.map((name) => sys.unlinkatAsync(fd, name)));
  sys.mkdirat(fd, 'there', 0o700);
  sys.symlinkat('there', fd, 'link');
  await assert.rejects(sys.unlinkatAsync(fd, 'link', sys.AT.REMOVEDIR), (error) => sys.hasErrno(error, 'ENOTDIR'));
  await sys.unlinkatAsync(fd, 'link');
  await assert.rejects(sys.unlinkatAsync(fd, 'link'), (error) => sys.hasErrno(error, 'ENOENT'));
  await sys.unlinkatAsync(fd, 'there', sys.AT.REMOVEDIR);
  assert.deepEqual(readdirSync(directory), []);
});

test('mount, mountinfo, umount; the error of an async call is its own', { skip: root }, async (t) => {
  const dir = temporary(t);
  await sys.mount('none', dir, 'tmpfs', sys.MS.NOSUID, 'size=1m');
  const info = sys.lookupMount(dir)!;
  assert.deepEqual([info.mountPoint, info.fsType, info.options.includes('nosuid')], [dir, 'tmpfs', true]);
  assert.equal(sys.statfs(dir).type, sys.FS_MAGIC.TMPFS);
  const results = await Promise.allSettled([
    sys.umount(join(dir, 'none')),
    sys.umount('/proc/self'),
    sys.mount('none', join(dir, 'x'), 'tmpfs', 0),
  ]);
  assert.deepEqual(
    results.map((result) => result.status === 'rejected' && result.reason.code),
    ['ENOENT', 'EINVAL', 'ENOENT'],
  );
  await sys.umount(dir);
  assert.notEqual(sys.lookupMount(dir)?.mountPoint, dir);
});

test('the new mount calls', { skip: root }, async (t) => {
  const dir = temporary(t);
  const context = sys.fsopen('tmpfs');
  sys.fsconfig(context, 'size', '1m');
  assert.throws(() => sys.fsconfig(context, 'nonsense', 'x'), { code: 'EINVAL' });
  await sys.fsconfigCreate(context);
  const mount = sys.fsmount(context, sys.MOUNT_ATTR.NODEV);
  sys.moveMount(mount, '', sys.AT_FDCWD, dir, sys.MOVE_MOUNT.F_EMPTY_PATH);
  sys.mountSetattr(mount, '', sys.AT.EMPTY_PATH, { set: sys.MOUNT_ATTR.RDONLY });
  sys.close(mount);
  sys.close(context);
  const options = sys.lookupMount(dir)!.options;
  assert.ok(options.includes('ro') && options.includes('nodev'));
  await sys.umount(dir);
});

test('a child gets stdio, default signals and the asked limit, and nothing else', async (t) => {
  const stray = sys.fcntl(sys.openat(sys.AT_FDCWD, '/', sys.O.RDONLY), 0, 50); // F_DUPFD: without close-on-exec
  t.after(() => sys.close(stray));
  process.on('SIGPIPE', () => {});
  const mine = sys.getrlimit(sys.RLIMIT.NOFILE);
  const { out, exit } = await run({
    file: 'sh',
    args: [
      '-c',
      'ls /proc/self/fd | tr "\\n" " "; ulimit -Sn; ulimit -Hn; pwd; grep -E "Sig(Blk|Ign)" /proc/self/status; echo $A',
    ],
    env: { PATH: process.env['PATH'], A: 'é' },
    cwd: '/usr',
    nofile: { soft: 77, hard: mine.hard },
    setsid: true,
  });
  assert.match(out, /^0 1 2 3 77\n/); // 3 is ls's own
  assert.match(out, /\n\/usr\n/);
  assert.match(out, /SigBlk:\t0{16}\nSigIgn:\t0{16}\né\n$/);
  assert.equal(exit.exitStatus, 0);
  assert.deepEqual(sys.getrlimit(sys.RLIMIT.NOFILE), mine);
});

test('a limit below what this process has open reaches the child too', async () => {
  const nofile = { soft: 20, hard: 4096 };
  for (const file of ['sh', '/bin/sh']) {
    const { out, exit } = await run({
      file,
      args: ['-c', 'ulimit -Sn; ulimit -Hn; echo "$1"; exit 3', 'x', 'a b'],
      nofile,
    });
    assert.equal(out, '20\n4096\na b\n', 'from the first instruction on');
    assert.equal(exit.exitStatus, 3);
  }
  assert.throws(() => sys.spawn({ file: '/no/such', nofile }), { code: 'ENOENT' });
});

test('exit codes, signals and programs that are not there', async () => {
  assert.equal((await run({ file: 'sh', args: ['-c', 'exit 7'] })).exit.exitStatus, 7);
  const child = sys.spawn({ file: 'sleep', args: ['60'] });
  const end = sys.waitExit(child);
  sys.pidfdSendSignal(child.pidfd, 'SIGKILL');
  const exit = await end;
  assert.deepEqual([exit.signal, exit.exitStatus, exit.code], [9, 137, undefined]);
  assert.ok(Math.abs(Number(exit.at.seconds) - Date.now() / 1000) < 5);
  assert.throws(() => sys.spawn({ file: '/nonexistent/program' }), { code: 'ENOENT' });
  assert.equal(sys.isAwaited(child.pid), false);
});

test('stdio given in crossed order, and further descriptors', async () => {
  const [outReader, outWriter] = sys.pipe2();
  const child = sys.spawn({
    file: 'sh',
    args: ['-c', 'echo out; echo three >&3'],
    stdio: [null, outWriter, 1],
    extraFds: [outWriter],
  });
  sys.close(outWriter);
  await sys.waitExit(child);
  assert.equal(contents(outReader), 'out\nthree\n');
  sys.close(outReader);
});

test('the exit code of a process that is not our child', async (t) => {
  const [reader, writer] = sys.pipe2();
  const parent = sys.spawn({
    file: 'sh',
    args: ['-c', 'sh -c "sleep 0.2; exit 42" & echo $!; wait; sleep 0.1'],
    stdio: [null, writer, null],
  });
  sys.close(writer);
  const line = Buffer.alloc(32);
  const pid = Number(line.toString('utf8', 0, readSync(reader, line)));
  sys.close(reader);
  const pidfd = sys.pidfdOpen(pid);
  t.after(() => sys.close(pidfd));
  assert.deepEqual(sys.pidfdGetInfo(pidfd), { pid, exited: false });
  await sys.watchProcess(pidfd, { reaped: true });
  const info = sys.pidfdGetInfo(pidfd);
  assert.equal(info.exited, true);
  if (info.exitStatus !== undefined) assert.equal(info.exitStatus, 42);
  else t.diagnostic('this kernel does not keep exit codes (Linux 6.15 does)');
  await sys.waitExit(parent);
});

test('a subreaper collects orphans and leaves other children alone', async () => {
  sys.setSubreaper(true);
  const { promise, resolve } = Promise.withResolvers<{ pid: number; status: number }>();
  const stop = sys.onSigchld(() => {
    for (const orphan of sys.reapOrphans(() => false)) resolve(orphan);
  });
  const kept = sys.spawn({ file: 'sleep', args: ['60'] });
  const { out, exit } = await run({ file: 'sh', args: ['-c', '(sleep 0.2; exit 9) >/dev/null 2>&1 & echo $!'] });
  assert.equal(exit.exitStatus, 0);
  const orphan = await promise;
  assert.equal(orphan.pid, Number(out));
  assert.equal(sys.decodeStatus(orphan.status).exitStatus, 9);
  assert.ok(sys.listChildren().includes(kept.pid));
  sys.kill(kept.pid, 'TERM');
  assert.equal((await sys.waitExit(kept)).exitStatus, 143);
  stop();
  sys.setSubreaper(false);
});

test('FIFOs open at once in either direction', (t) => {
  const path = join(temporary(t), 'fifo');
  sys.mkfifo(path, 0o600);
  const writer = sys.openFifoWriter(path, { hold: true });
  const reader = sys.openFifoReader(path);
  assert.equal(reader.holder, -1);
  writeSync(writer.fd, 'hello');
  const buffer = Buffer.alloc(5);
  assert.equal(readSync(reader.fd, buffer), 5);
  for (const fd of [writer.fd, writer.holder, reader.fd]) sys.close(fd);
});

test('splice and tee between pipes', () => {
  const [ar, aw] = sys.pipe2();
  const [br, bw] = sys.pipe2(sys.O.NONBLOCK);
  assert.ok(sys.fcntlSetPipeSize(aw, 1 << 17) >= 1 << 17);
  writeSync(aw, 'copy');
  assert.equal(sys.tee(ar, bw, 100, sys.SPLICE.NONBLOCK), 4);
  assert.equal(sys.splice(ar, bw, 100, sys.SPLICE.NONBLOCK), 4);
  assert.equal(sys.splice(ar, bw, 100, sys.SPLICE.NONBLOCK), -1);
  const buffer = Buffer.alloc(100);
  assert.equal(buffer.toString('utf8', 0, readSync(br, buffer)), 'copycopy');
  for (const fd of [ar, aw, br, bw]) sys.close(fd);
});

test('a terminal passed over a socket', () => {
  const pty = sys.openPty();
  sys.setWinsize(pty.master, { rows: 12, cols: 34 });
  const [a, b] = sys.socketpair();
  assert.equal(sys.sendFds(a, Buffer.from('x'), [pty.slave, pty.master]), 1);
  const { data, fds, truncated } = sys.recvFds(b, 2);
  assert.deepEqual([data.toString(), fds.length, truncated], ['x', 2, false]);
  assert.deepEqual(sys.getWinsize(fds[0]!), { rows: 12, cols: 34 });
  assert.equal(sys.peerCredentials(a).pid, process.pid);
  const restore = sys.makeRaw(pty.slave);
  writeSync(pty.slave, 'a\n');
  const buffer = Buffer.alloc(10);
  assert.equal(buffer.toString('utf8', 0, readSync(pty.master, buffer)), 'a\n');
  restore();
  writeSync(pty.slave, 'a\n');
  assert.equal(buffer.toString('utf8', 0, readSync(pty.master, buffer)), 'a\r\n');
  for (const fd of [...fds, a, b, pty.master, pty.slave]) sys.close(fd);
});

test('signal names', () => {
  assert.deepEqual(['9', 'KILL', 'sigterm', 'RTMIN+3', 'SIGRTMAX-1', 2].map(sys.signalNumber), [9, 9, 15, 37, 63, 2]);
  assert.throws(() => sys.signalNumber('NONSENSE'), { code: 'EINVAL' });
});

test('eventfd and inotify wake a watch', async (t) => {
  const dir = temporary(t);
  const fd = sys.inotify();
  sys.inotifyAdd(fd, dir, sys.IN.CREATE);
  const woken = sys.readable(fd);
  writeFileSync(join(dir, 'new'), '');
  await woken;
  const events = Buffer.alloc(512);
  assert.ok(readSync(fd, events) > 16);
  sys.close(fd);
});

test('descriptors are close-on-exec', () => {
  const fds = [...sys.pipe2(), ...sys.socketpair(), sys.eventfd(), sys.inotify(), sys.pidfdOpen(process.pid)];
  for (const fd of fds) assert.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^flags:\s+0?[0-7]*2[0-7]{6}$/m);
  for (const fd of fds) sys.close(fd);
  assert.equal(execFileSync('true').length, 0);
});
