// `npm run test:vm`: end-to-end tests in a virtual machine whose only cgroup hierarchy is v2 and whose init is systemd (Debian
// stable, its own kernel). The machine is emulated, so this works without KVM and takes its time. Arguments are test files to run
// instead of the usual ones; `--keep` leaves the disks in .cache/vm for a look. Needs root, and Debian's qemu-system-x86 and debootstrap.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { aptInstall, isRoot, prepare, SetupError, step, top, which } from './setup.mjs';

const tests = [
  'packages/cgroups/src/**/*.test.ts',
  'test/e2e/cgroup-v2.test.ts',
  'test/e2e/monitors.test.ts',
  'test/e2e/run-flags.test.ts',
  'test/e2e/clients.test.ts',
];

/** What the guest has beside Debian's base: an init, a kernel, and the programs that the tests call. */
const packages =
  'systemd systemd-sysv dbus linux-image-cloud-amd64 runc crun containerd busybox-static skopeo docker-registry ' +
  'iproute2 kmod procps bsdutils xz-utils zstd attr libcap2-bin ca-certificates openssl libatomic1';

/** Emulated, everything takes about this many times longer; the tests wait so much longer too. */
const patience = 15;
const hourLimit = 2;

const guestScript = `#!/bin/sh
# Runs as a service of the guest, on its console.
cd /project
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CI=true GANTRY_TEST_PATIENCE=${patience}
ip link set lo up
modprobe overlay
echo "guest: $(uname -r), $(stat -fc %T /sys/fs/cgroup), $(cat /sys/fs/cgroup/cgroup.controllers)"
node_modules/node/bin/node --test --test-concurrency=1 --test-timeout=3600000 --test-reporter=spec $(cat /project/tests)
echo "guest: exit code $?"
`;

const guestUnit = `[Unit]
Description=The tests, on the console
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /project/run
ExecStopPost=/bin/systemctl poweroff --force
Delegate=yes
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
`;

const folder = path.join(top, '.cache/vm');
const args = process.argv.slice(2);
const files = args.filter((arg) => !arg.startsWith('--'));

/** The guest's root as a tree, made once for each list of packages. */
function baseTree() {
  const name = createHash('sha256')
    .update(packages + guestUnit)
    .digest('hex')
    .slice(0, 12);
  const tree = path.join(folder, `base-${name}`);
  if (existsSync(tree)) return tree;
  rmSync(folder, { recursive: true, force: true });
  const partial = `${tree}.partial`;
  mkdirSync(partial, { recursive: true });
  console.log('making a Debian for the virtual machine (debootstrap) ...');
  const quiet = { stdio: 'ignore', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  step('debootstrap', 'debootstrap', ['--variant=minbase', 'bookworm', partial], quiet);
  const install = ['apt-get', 'install', '-y', '-qq', '--no-install-recommends', ...packages.split(' ')];
  step('apt-get install', 'chroot', [partial, ...install], quiet);
  writeFileSync(path.join(partial, 'etc/fstab'), '/dev/vda / ext4 rw 0 1\n/dev/vdb /project ext4 rw 0 2\n');
  mkdirSync(path.join(partial, 'project'));
  writeFileSync(path.join(partial, 'etc/systemd/system/gantry-tests.service'), guestUnit);
  const wants = path.join(partial, 'etc/systemd/system/multi-user.target.wants');
  for (const service of ['containerd', 'docker-registry'])
    rmSync(path.join(wants, `${service}.service`), { force: true });
  // A login on the console would hang it up for the tests.
  symlinkSync('/dev/null', path.join(partial, 'etc/systemd/system/serial-getty@ttyS0.service'));
  symlinkSync('/etc/systemd/system/gantry-tests.service', path.join(wants, 'gantry-tests.service'));
  renameSync(partial, tree);
  return tree;
}

/** The project as the guest sees it: what tests run, without what only builds. */
function projectTree() {
  const tree = path.join(folder, 'project');
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(path.join(tree, '.cache/go-bin'), { recursive: true });
  const builders = new Set(['@biomejs', '@typescript', 'typescript', '@esbuild', 'esbuild', '.cache', '.bin']);
  const skip = new Set(['buf', 'buf-linux-x64'].map((name) => path.join(top, 'node_modules/@bufbuild', name)));
  for (const name of ['bin', 'dist', 'packages', 'test', 'scripts', 'docs', 'package.json', 'tsconfig.json']) {
    cpSync(path.join(top, name), path.join(tree, name), { recursive: true, verbatimSymlinks: true });
  }
  for (const name of readdirSync(path.join(top, 'node_modules'))) {
    if (builders.has(name)) continue;
    cpSync(path.join(top, 'node_modules', name), path.join(tree, 'node_modules', name), {
      recursive: true,
      verbatimSymlinks: true,
      filter: (source) => !skip.has(source),
    });
  }
  for (const name of ['ctr', 'containerd', 'containerd-shim-runc-v2', 'new/runc']) {
    const source = path.join(top, '.cache/go-bin', name);
    if (existsSync(source)) cpSync(source, path.join(tree, '.cache/go-bin', name), { recursive: true });
  }
  writeFileSync(path.join(tree, 'run'), guestScript, { mode: 0o755 });
  writeFileSync(path.join(tree, 'tests'), (files.length > 0 ? files : tests).join(' '));
  return tree;
}

function disk(name, tree, size) {
  const file = path.join(folder, `${name}.img`);
  rmSync(file, { force: true });
  step('mke2fs', which('mke2fs') ?? 'mke2fs', ['-q', '-t', 'ext4', '-d', tree, file, size]);
  return file;
}

/** Runs the guest to its end, its console shown. @returns the tests' exit code */
async function boot(base, disks) {
  const boots = readdirSync(path.join(base, 'boot'));
  const part = (prefix) =>
    path.join(
      base,
      'boot',
      boots.find((name) => name.startsWith(prefix)),
    );
  const machine = ['-accel', 'tcg,thread=multi', '-cpu', 'max', '-M', 'q35', '-m', '4096', '-smp', '2'];
  const console_ = ['-display', 'none', '-no-reboot', '-nic', 'none', '-serial', 'stdio'];
  const kernel = ['-kernel', part('vmlinuz'), '-initrd', part('initrd')];
  const line = 'root=/dev/vda rw console=ttyS0 quiet systemd.unified_cgroup_hierarchy=1 systemd.show_status=0';
  const drives = disks.flatMap((file) => ['-drive', `file=${file},if=virtio,format=raw,cache=unsafe,snapshot=on`]);
  const child = spawn('qemu-system-x86_64', [...machine, ...console_, ...kernel, '-append', line, ...drives], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), hourLimit * 3_600_000);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => child.kill('SIGKILL'));
  let code = 1;
  for await (const text of createInterface({ input: child.stdout })) {
    console.log(text);
    const ended = /^guest: exit code (\d+)/.exec(text);
    if (ended) code = Number(ended[1]);
  }
  clearTimeout(timer);
  return code;
}

let code = 1;
try {
  if (process.arch !== 'x64')
    throw new SetupError('the virtual machine is an x86-64 one, with programs of this machine');
  if (!isRoot()) throw new SetupError('not root: debootstrap needs it');
  const needed = { 'qemu-system-x86_64': 'qemu-system-x86', debootstrap: 'debootstrap', mke2fs: 'e2fsprogs' };
  aptInstall(Object.entries(needed).flatMap(([program, name]) => (which(program) ? [] : [name])));
  prepare();
  const base = baseTree();
  const project = projectTree();
  const disks = [disk('root', base, '4G'), disk('project', project, '3G')];
  rmSync(project, { recursive: true, force: true });
  code = await boot(base, disks);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`test:vm: ${error.message}`);
} finally {
  if (!args.includes('--keep'))
    for (const name of ['root.img', 'project.img']) rmSync(path.join(folder, name), { force: true });
}
process.exit(code);
