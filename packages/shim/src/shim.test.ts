import assert from 'node:assert/strict';
import { chmodSync, existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, Socket } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code, hasCode, jsonAny, packAny, TypeUrl, unpackAny } from '@gantry/api';
import { TaskExitSchema } from '@gantry/api/gen/events/task_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import { AT_FDCWD, O, openat } from '@gantry/sys';
import { ended, ShimLab } from './testing/shim-lab.ts';

const noStdio = { stdin: '', stdout: '', stderr: '' };

for (const runtime of ['runc', 'crun']) {
  const skip = await ShimLab.unable(runtime);
  describe(`gantry-shim with ${runtime}`, { skip: skip ?? false }, () => {
    let lab: ShimLab;
    before(async () => {
      lab = await ShimLab.open(runtime);
    });
    after(() => lab.close());

    /** create, with this lab's rootfs and options. */
    const make = async (
      id: string,
      args: string[],
      stdio: Partial<typeof noStdio> & { terminal?: boolean } = {},
      more = {},
    ) => {
      const bundle = lab.bundle(id, { args, terminal: stdio.terminal ?? false, ...more });
      const shim = await lab.start(id);
      const { pid } = await shim.task.create({
        id,
        bundle,
        rootfs: lab.rootfsMounts,
        options: lab.options,
        ...noStdio,
        ...stdio,
      });
      lab.letGo();
      return { ...shim, pid, bundle };
    };
    const remove = async (task: Awaited<ReturnType<typeof make>>['task'], id: string) => {
      await task.kill({ id, signal: 9, all: true }).catch(() => {});
      await task.wait({ id });
      await task.delete({ id });
    };

    test('a container from create to delete, with output, exit code and events in order', async () => {
      const id = 'plain';
      const fifos = lab.fifos(id);
      const out = lab.read(fifos.stdout);
      const err = lab.read(fifos.stderr);
      const { task, pid, bundle } = await make(id, ['sh', '-c', 'echo out; echo err >&2; exit 7'], {
        stdout: fifos.stdout,
        stderr: fifos.stderr,
      });
      assert.equal((await task.state({ id })).status, Status.CREATED);
      assert.ok(existsSync(path.join(bundle, 'rootfs/bin/busybox')));
      const waited = task.wait({ id });
      assert.equal((await task.start({ id })).pid, pid);
      const exit = await waited;
      assert.equal(exit.exitStatus, 7);
      assert.equal((await task.state({ id })).status, Status.STOPPED);
      const deleted = await task.delete({ id });
      assert.equal(deleted.exitStatus, 7);
      assert.equal(deleted.pid, pid);
      assert.deepEqual(deleted.exitedAt, exit.exitedAt);
      assert.equal(await out, 'out\n');
      assert.equal(await err, 'err\n');
      assert.ok(!existsSync(path.join(bundle, 'rootfs/bin')));
      const events = await lab.eventsUntil('/tasks/delete', id);
      assert.deepEqual(ShimLab.typesOf(events), ['TaskCreate', 'TaskStart', 'TaskExit', 'TaskDelete']);
      const seen = unpackAny(TaskExitSchema, events[2]!.event);
      assert.deepEqual([seen.containerId, seen.id, seen.pid, seen.exitStatus], [id, id, pid, 7]);
      assert.ok(events.every((event) => event.namespace === lab.namespace));
      await assert.rejects(task.state({ id }), (error) => hasCode(error, Code.NotFound));
    });

    test('a slow reader gets all of 8 MB although Delete follows Wait at once', async () => {
      const id = 'big';
      const fifos = lab.fifos(id);
      const out = lab.read(fifos.stdout);
      const { task } = await make(id, ['sh', '-c', 'dd if=/dev/zero bs=64k count=128 2>/dev/null; echo end'], {
        stdout: fifos.stdout,
      });
      await task.start({ id });
      await task.wait({ id });
      await task.delete({ id });
      const text = await out;
      assert.equal(text.length, 8 * 1024 * 1024 + 4);
      assert.ok(text.endsWith('end\n'));
    });

    test('input comes to its end only by CloseIO', async () => {
      const id = 'input';
      const fifos = lab.fifos(id);
      const out = lab.read(fifos.stdout);
      const { task } = await make(id, ['cat'], { stdin: fifos.stdin, stdout: fifos.stdout });
      await task.start({ id });
      const write = (text: string) =>
        new Promise<void>((resolve) => {
          const socket = new Socket({ fd: openat(AT_FDCWD, fifos.stdin, O.WRONLY | O.NONBLOCK), readable: false });
          socket.end(text, () => {
            socket.destroy();
            resolve();
          });
        });
      await write('first ');
      await write('second');
      assert.equal((await task.state({ id })).status, Status.RUNNING);
      await task.closeIO({ id, stdin: true });
      assert.equal((await task.wait({ id })).exitStatus, 0);
      await task.delete({ id });
      assert.equal(await out, 'first second');
    });

    test('execs: output, exit codes, errors, signals', async () => {
      const id = 'execs';
      const { task } = await make(id, ['sleep', '100']);
      await task.start({ id });
      const fifos = lab.fifos('e1');
      const out = lab.read(fifos.stdout);
      await task.exec({
        id,
        execId: 'e1',
        ...noStdio,
        stdout: fifos.stdout,
        spec: lab.execSpec(['sh', '-c', 'echo from exec; env | cut -d= -f1 | sort | xargs; exit 3']),
      });
      await assert.rejects(task.exec({ id, execId: 'e1', spec: lab.execSpec(['true']) }), (error) =>
        hasCode(error, Code.AlreadyExists),
      );
      assert.equal((await task.state({ id, execId: 'e1' })).status, Status.CREATED);
      const { pid } = await task.start({ id, execId: 'e1' });
      lab.letGo();
      assert.equal((await task.wait({ id, execId: 'e1' })).exitStatus, 3);
      assert.equal((await task.delete({ id, execId: 'e1' })).pid, pid);
      // Its environment is that of its document: nothing of ours, nothing of the runtime's.
      assert.match(await out, /^from exec\n(?=.*\bPATH\b)(?!.*(GOMAXPROCS|GANTRY|ADDRESS|NODE)).*\n$/);

      await task.exec({ id, execId: 'e2', spec: lab.execSpec(['/nope']) });
      await assert.rejects(task.start({ id, execId: 'e2' }), /OCI runtime exec failed: .*\/nope/);
      await task.delete({ id, execId: 'e2' });

      await task.exec({ id, execId: 'e3', spec: lab.execSpec(['sleep', '100']) });
      await task.start({ id, execId: 'e3' });
      await assert.rejects(task.delete({ id, execId: 'e3' }), (error) => hasCode(error, Code.FailedPrecondition));
      await task.kill({ id, execId: 'e3', signal: 15 });
      assert.equal((await task.wait({ id, execId: 'e3' })).exitStatus, 143);
      await assert.rejects(task.kill({ id, execId: 'e3', signal: 15 }), (error) => hasCode(error, Code.NotFound));
      await remove(task, id);
      const events = await lab.eventsUntil('/tasks/delete', id);
      const ofE1 = ShimLab.typesOf(events.filter((seen) => Buffer.from(seen.event.value).includes('e1')));
      assert.deepEqual(ofE1, ['TaskExecAdded', 'TaskExecStarted', 'TaskExit']);
    });

    test('a terminal: size, output and hang-up', async () => {
      const id = 'tty';
      const fifos = lab.fifos(id);
      const out = lab.read(fifos.stdout);
      const { task } = await make(id, ['sh', '-c', 'read line; echo "got $line"; stty size; exit 4'], {
        stdin: fifos.stdin,
        stdout: fifos.stdout,
        terminal: true,
      });
      await task.resizePty({ id, width: 91, height: 33 });
      await task.start({ id });
      const input = new Socket({ fd: openat(AT_FDCWD, fifos.stdin, O.WRONLY | O.NONBLOCK), readable: false });
      input.write('hello\r');
      assert.equal((await task.wait({ id })).exitStatus, 4);
      input.destroy();
      await task.delete({ id });
      assert.match(await out, /got hello\r\n33 91\r\n/);
    });

    test('pause, resume, pids, update', async () => {
      const id = 'pause';
      const { task, pid } = await make(id, ['sleep', '100']);
      await task.start({ id });
      await task.pause({ id });
      assert.equal((await task.state({ id })).status, Status.PAUSED);
      await assert.rejects(task.exec({ id, execId: 'x', spec: lab.execSpec(['true']) }), (error) =>
        hasCode(error, Code.FailedPrecondition),
      );
      await task.resume({ id });
      assert.equal((await task.state({ id })).status, Status.RUNNING);
      assert.deepEqual(
        (await task.pids({ id })).processes.map((process) => process.pid),
        [pid],
      );
      const { stats } = await task.stats({ id });
      assert.match(stats!.typeUrl, /^io\.containerd\.cgroups\.v[12]\.Metrics$/);
      assert.ok(stats!.value.length > 50);
      const spec = { memory: { limit: 64 * 1024 * 1024 } };
      await task.update({ id, resources: jsonAny(TypeUrl.RuntimeSpecLinuxResources, JSON.stringify(spec)) });
      await remove(task, id);
    });

    test('the kernel killing for want of memory is an event', async () => {
      const id = 'oom';
      const { task } = await make(id, ['sh', '-c', 'sleep 0.3; x=a; while :; do x=$x$x; done']);
      await task.start({ id });
      const spec = { memory: { limit: 8 * 1024 * 1024 } };
      await task.update({ id, resources: jsonAny(TypeUrl.RuntimeSpecLinuxResources, JSON.stringify(spec)) });
      assert.equal((await task.wait({ id })).exitStatus, 137);
      await lab.eventsUntil('/tasks/oom', id);
      await task.delete({ id });
    });

    test('a create that fails leaves nothing behind', async () => {
      const id = 'failed';
      await assert.rejects(make(id, ['/nope']), /OCI runtime create failed: .*\/nope/);
      const bundle = path.join(lab.directory, 'bundles', id);
      assert.ok(!existsSync(path.join(bundle, 'rootfs/bin')));
      assert.ok(!existsSync(path.join(bundle, 'gantry-shim.json')));
    });

    test('without a pid namespace of its own the rest is killed with its init', async () => {
      const id = 'hostpid';
      const { task } = await make(
        id,
        ['sh', '-c', 'sleep 1000 & echo $! > /tmp/pid; sleep 0.1'],
        {},
        { without: ['pid'] },
      );
      await task.start({ id });
      await task.wait({ id });
      const left = Number(readFileSync(path.join(lab.rootfs, 'tmp/pid'), 'utf8'));
      await ended(left, 3000);
      await task.delete({ id });
    });

    test('one that leaves nothing behind needs no runtime for its end, and leaves no state', async () => {
      const id = 'hostpid-alone';
      const { task } = await make(id, ['sleep', '1000'], {}, { without: ['pid'] });
      await task.start({ id });
      const traces = [`${lab.directory}/state/*/${id}`, `/sys/fs/cgroup/{,*/}gantry-shim-lab-${process.pid}/${id}`];
      assert.ok(globSync(traces).length > 1);
      await task.kill({ id, signal: 9, all: true });
      assert.equal((await task.wait({ id })).exitStatus, 137);
      await task.delete({ id });
      assert.deepEqual(globSync(traces), []);
    });

    test('file:// and binary:// loggers', async () => {
      const file = path.join(lab.directory, 'file.log');
      const first = await make('tofile', ['sh', '-c', 'echo one; echo two >&2'], {
        stdout: `file://${file}`,
        stderr: `file://${file}`,
      });
      await first.task.start({ id: 'tofile' });
      await first.task.wait({ id: 'tofile' });
      await first.task.delete({ id: 'tofile' });
      assert.equal(readFileSync(file, 'utf8'), 'one\ntwo\n');

      const program = path.join(lab.directory, 'logger');
      const log = path.join(lab.directory, 'binary.log');
      writeFileSync(
        program,
        '#!/bin/sh\nexec 5>&-\n{ echo "$CONTAINER_NAMESPACE/$CONTAINER_ID $*"; cat <&3; cat <&4; echo done; } > "$2"\n',
      );
      chmodSync(program, 0o755);
      const uri = `binary://${program}?out=${log}`;
      const second = await make('tobinary', ['sh', '-c', 'echo one; echo two >&2'], { stdout: uri, stderr: uri });
      await second.task.start({ id: 'tobinary' });
      await second.task.wait({ id: 'tobinary' });
      await second.task.delete({ id: 'tobinary' });
      for (const end = Date.now() + 5000; !readFileSync(log, 'utf8').endsWith('done\n') && Date.now() < end; )
        await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(readFileSync(log, 'utf8'), `lab/tobinary out ${log}\none\ntwo\ndone\n`);
    });

    test('many at once share one process, which ends when nobody needs it', async () => {
      const ids = Array.from({ length: 6 }, (_, index) => `many${index}`);
      const shims = await Promise.all(ids.map((id) => make(id, ['true'])));
      assert.equal(new Set(shims.map((shim) => shim.shimPid)).size, 1);
      const { states } = await shims[0]!.shim.states({ ids: [...ids, 'absent'] });
      assert.deepEqual(
        states,
        await Promise.all(ids.map((id) => shims[0]!.task.state({ id }))),
        'asked for at once or one by one',
      );
      await Promise.all(
        ids.map(async (id) => {
          const { task } = shims[0]!;
          await task.start({ id });
          await task.wait({ id });
          await task.delete({ id });
        }),
      );
      const { task, address, shimPid } = shims[0]!;
      await task.shutdown({ id: ids[0]!, now: true });
      await ended(shimPid, 5000);
      assert.ok(!existsSync(address.replace('unix://', '')));
    });

    test('descriptors, signals and limits in a container are not those of Node', async () => {
      const id = 'inherit';
      const ask = async (args: string[]) => {
        const fifos = lab.fifos(`${id}-${args[0]}`);
        const out = lab.read(fifos.stdout);
        const { task } = await make(id, args, { stdout: fifos.stdout });
        await task.start({ id });
        await task.wait({ id });
        await task.delete({ id });
        return out;
      };
      // 0, 1, 2 and the one that ls itself reads the directory with.
      assert.equal(await ask(['ls', '/proc/self/fd']), '0\n1\n2\n3\n');
      assert.match(await ask(['grep', '-E', 'SigBlk|SigIgn', '/proc/self/status']), /^SigBlk:\t0+\nSigIgn:\t0+\n$/);
    });

    test('events wait for a daemon that is away', async () => {
      const id = 'away';
      await lab.daemonDown();
      const { task } = await make(id, ['true']);
      await task.start({ id });
      await task.wait({ id });
      await task.delete({ id });
      await lab.daemonUp();
      const events = await lab.eventsUntil('/tasks/delete', id);
      assert.deepEqual(ShimLab.typesOf(events), ['TaskCreate', 'TaskStart', 'TaskExit', 'TaskDelete']);
    });

    test('a new shim adopts the containers of one that was killed', async () => {
      const id = 'adopt';
      const fifos = lab.fifos(id);
      const out = lab.read(fifos.stdout);
      const first = await make(id, ['sh', '-c', 'trap "echo bye; exit 9" TERM; echo up; while :; do sleep 0.1; done'], {
        stdout: fifos.stdout,
      });
      await first.task.start({ id });
      process.kill(first.shimPid, 'SIGKILL');
      await ended(first.shimPid, 3000);
      const second = await lab.start(id);
      assert.equal(second.address, first.address);
      assert.notEqual(second.shimPid, first.shimPid);
      const state = await second.task.state({ id });
      assert.deepEqual([state.status, state.pid], [Status.RUNNING, first.pid]);
      const waited = second.task.wait({ id });
      await second.task.kill({ id, signal: 15 });
      const { exitStatus } = await waited;
      assert.ok([9, 255].includes(exitStatus), `exit status ${exitStatus}`);
      await second.task.delete({ id });
      assert.equal(await out, 'up\nbye\n');
    });

    test('a runtime cut off by the end of its shim completes nothing behind the next one', async () => {
      // This runtime takes its time; the shim is killed while it works.
      const slow = path.join(lab.directory, 'slow');
      const flag = path.join(lab.directory, 'slow.flag');
      writeFileSync(
        slow,
        `#!/bin/sh\ncase "$*" in *" create "*) touch ${flag}; sleep 1;; esac\nexec ${runtime} "$@"\n`,
      );
      chmodSync(slow, 0o755);
      const id = 'cutoff';
      const bundle = lab.bundle(id, { args: ['sleep', '100'] });
      const first = await lab.start(id);
      const created = first.task.create({
        id,
        bundle,
        rootfs: lab.rootfsMounts,
        options: packAny(OptionsSchema, { binaryName: slow, root: path.join(lab.directory, 'state') }),
      });
      created.catch(() => {});
      while (!existsSync(flag)) await new Promise((resolve) => setTimeout(resolve, 10));
      process.kill(first.shimPid, 'SIGKILL');
      await assert.rejects(created);
      const second = await lab.start(id);
      await assert.rejects(second.task.state({ id }), (error) => hasCode(error, Code.NotFound));
      await new Promise((resolve) => setTimeout(resolve, 1200));
      assert.ok(!existsSync(path.join(lab.directory, 'state', lab.namespace, id)));
      assert.ok(!existsSync(path.join(bundle, 'rootfs/bin')));
      const { pid } = await second.task.create({ id, bundle, rootfs: lab.rootfsMounts, options: lab.options });
      assert.ok(pid > 0);
      await remove(second.task, id);
    });

    test('the delete action ends a container whose shim is gone', async () => {
      const id = 'orphan';
      const { task, shimPid, pid, bundle } = await make(id, ['sleep', '100']);
      await task.start({ id });
      process.kill(shimPid, 'SIGKILL');
      await ended(shimPid, 3000);
      await lab.run('delete', id);
      await ended(pid, 3000);
      assert.ok(!existsSync(path.join(bundle, 'rootfs/bin')));
      // A second time there is nothing left to do.
      await lab.run('delete', id);
    });

    test('a connection that sends nonsense disturbs nobody', async () => {
      const id = 'nonsense';
      const { task, address } = await make(id, ['sleep', '100']);
      await task.start({ id });
      const socket = connect({ path: address.replace('unix://', '') });
      socket.on('error', () => {});
      await new Promise<void>((resolve) => {
        socket.on('close', () => resolve());
        socket.resume();
        socket.end(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
      });
      assert.equal((await task.state({ id })).status, Status.RUNNING);
      await remove(task, id);
    });
  });
}
