// `npm test`: installs what the tests need, builds, checks types, style and rooms, and runs every test. Arguments are test
// files to run instead of all; `--quick` leaves out the installation and the checks, `--no-checks` the checks alone; `--one-at-a-time`
// runs no two files at once, `--timeout=` sets what one test may take in milliseconds.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { installCriu } from './criu.mjs';
import { compileKubelet } from './kubelet.mjs';
import { aptInstall, isRoot, node, prepare, SetupError, step, top, which } from './setup.mjs';

/** Debian packages by a program of theirs. */
const packages = {
  containerd: 'containerd',
  runc: 'runc',
  crun: 'crun',
  skopeo: 'skopeo',
  'docker-registry': 'docker-registry',
  busybox: 'busybox-static',
  xz: 'xz-utils',
  zstd: 'zstd',
  git: 'git',
  'fuse-overlayfs': 'fuse-overlayfs',
  'mount.fuse3': 'fuse3',
  'mkfs.btrfs': 'btrfs-progs',
  'mkfs.ext4': 'e2fsprogs',
  umoci: 'umoci',
  setfattr: 'attr',
  setcap: 'libcap2-bin',
  // For its library, libisal.so.2.
  igzip: 'isal',
  gpg: 'gnupg',
  pass: 'pass',
  'docker-credential-pass': 'golang-docker-credential-helpers',
  'fsck.erofs': 'erofs-utils',
  runsc: 'runsc',
  ip: 'iproute2',
  dockerd: 'docker.io',
  gcc: 'gcc',
};

/** Further ones, by a file of theirs. */
const libraries = {
  '/usr/include/seccomp.h': 'libseccomp-dev',
  '/usr/include/stdio.h': 'libc6-dev',
  '/usr/bin/pkg-config': 'pkg-config',
  '/usr/lib/cni/bridge': 'containernetworking-plugins',
  '/usr/sbin/iptables': 'iptables',
  ...(process.env.GANTRY_CRITEST && {
    '/usr/sbin/nginx': 'nginx-light',
    '/usr/bin/pgrep': 'procps',
    '/usr/bin/ipcs': 'util-linux',
  }),
  ...(process.env.GANTRY_SUITES && { '/usr/bin/strace': 'strace', '/usr/bin/lsof': 'lsof' }),
};

/** Go programs that the tests talk to, as modules of one version; by where they go, as some have the same name. */
const goTools = {
  containerd: 'github.com/containerd/containerd/v2/cmd/containerd@v2.3.4',
  ctr: 'github.com/containerd/containerd/v2/cmd/ctr@v2.3.4',
  'containerd-shim-runc-v2': 'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.3.4',
  'containerd-fuse-overlayfs-grpc':
    'github.com/containerd/fuse-overlayfs-snapshotter/v2/cmd/containerd-fuse-overlayfs-grpc@v2.1.7',
  cosign: 'github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5',
  'imgcrypt/ctr': 'github.com/containerd/imgcrypt/cmd/ctr@v1.1.1',
  'imgcrypt/ctd-decoder': 'github.com/containerd/imgcrypt/cmd/ctd-decoder@v1.1.1',
  crictl: 'sigs.k8s.io/cri-tools/cmd/crictl@v1.36.0',
  // Debian's do not know version 1.1 of the specification.
  'cni/bridge': 'github.com/containernetworking/plugins/plugins/main/bridge@v1.9.1',
  'cni/host-local': 'github.com/containernetworking/plugins/plugins/ipam/host-local@v1.9.1',
  // A shim and a CNI plugin that fail at will, and what looks at a loopback device: for containerd's integration tests.
  'failpoint/containerd-shim-runc-fp-v1':
    'github.com/containerd/containerd/v2/integration/failpoint/cmd/containerd-shim-runc-fp-v1@v2.3.4',
  'failpoint/cni-bridge-fp': 'github.com/containerd/containerd/v2/integration/failpoint/cmd/cni-bridge-fp@v2.3.4',
  'failpoint/loopback-v2': 'github.com/containerd/containerd/v2/integration/failpoint/cmd/loopback-v2@v2.3.4',
  // Of 2025: for id-mapped mounts and scheduling cores. It needs a C compiler and libseccomp.
  'new/runc': 'github.com/opencontainers/runc@v1.4.4',
};

/** How those are built that are not plain Go. */
const goSettings = { 'new/runc': { CGO_ENABLED: '1', GOFLAGS: '-mod=mod -tags=seccomp' } };

function installPrograms() {
  const missing = Object.entries(packages).filter(([program]) => !which(program));
  missing.push(...Object.entries(libraries).filter(([file]) => !existsSync(file)));
  if (missing.length > 0) {
    if (isRoot() && which('apt-get')) aptInstall(missing.map(([, name]) => name));
    else {
      const names = missing.map(([program]) => program).join(', ');
      console.warn(`test: tests that need ${names} will be skipped: not there, and this is not root on Debian`);
    }
  }
  const noCriu = installCriu();
  if (noCriu) console.warn(`test: tests that need CRIU will be skipped: ${noCriu}`);
  const bin = path.join(top, '.cache/go-bin');
  const go = which('go') ?? (existsSync('/usr/local/go/bin/go') ? '/usr/local/go/bin/go' : undefined);
  for (const [name, module] of Object.entries(goTools)) {
    if (existsSync(path.join(bin, name))) continue;
    if (!go) {
      console.warn(`test: tests that need ${module} will be skipped: Go is not installed`);
      continue;
    }
    const folder = path.dirname(path.join(bin, name));
    mkdirSync(folder, { recursive: true });
    console.log(`go install ${module} ...`);
    const env = { ...process.env, GOBIN: folder, CGO_ENABLED: '0', GOFLAGS: '-mod=mod', ...goSettings[name] };
    const result = spawnSync(go, ['install', module], { stdio: ['ignore', 'ignore', 'inherit'], env });
    if (result.status !== 0) console.warn(`test: could not install ${module}; tests that need it will be skipped`);
  }
  // For those who want it.
  const critest = 'sigs.k8s.io/cri-tools/cmd/critest';
  if (process.env.GANTRY_CRITEST) compileInScratch(bin, go, 'critest', `${critest}@v1.36.0`, critest, { tests: true });
  const integration = 'github.com/containerd/containerd/v2/integration';
  compileInScratch(bin, go, 'containerd-integration', `${integration}@v2.3.4`, integration, { tests: true });
  compileNriPlugins(bin, go);
  // Only for those who want its tests, and name none.
  if (process.env.GANTRY_KUBELET && !process.env.GANTRY_KUBELET.startsWith('/')) {
    const failed = compileKubelet(path.join(bin, 'kubelet'), path.join(top, '.cache/kubelet'), go);
    if (failed) console.warn(`test: tests that need a kubelet will be skipped: ${failed}`);
  }
}

/** NRI plugins of others: two on the reference's stub, one of its samples, and those of nydus, whose module cannot be installed from outside. */
function compileNriPlugins(bin, go) {
  const nydus = 'github.com/containerd/nydus-snapshotter';
  compileInScratch(bin, go, 'nri-stub-plugin', 'github.com/containerd/nri@v0.12.0', '.', {
    source: 'test/lib/nri-plugin/main.go',
  });
  compileInScratch(bin, go, 'nri-json-plugin', 'github.com/containerd/nri@v0.12.0', '.', {
    source: 'test/lib/nri-json-plugin/main.go',
  });
  // The one sample of the reference that is no module of its own, in the last version where it is none.
  const adjuster = 'github.com/containerd/nri/plugins/ulimit-adjuster';
  compileInScratch(bin, go, 'ulimit-adjuster', 'github.com/containerd/nri@v0.4.0', adjuster);
  compileInScratch(bin, go, 'nri-plugin.wasm', 'github.com/containerd/nri@v0.12.0', '.', {
    source: 'test/lib/nri-wasm-plugin/main.go',
    env: { GOOS: 'wasip1', GOARCH: 'wasm' },
    flags: ['-buildmode=c-shared'],
  });
  for (const name of ['prefetchfiles-nri-plugin', 'optimizer-nri-plugin']) {
    compileInScratch(bin, go, name, `${nydus}@v0.15.15`, `${nydus}/cmd/${name}`);
  }
}

/** Compiles a program in a module of its own, which needs another. `tests` makes the program of a package's tests. */
function compileInScratch(bin, go, name, module, program, { source, tests = false, env: settings, flags = [] } = {}) {
  const file = path.join(bin, name);
  if (existsSync(file)) return;
  if (!go) {
    console.warn(`test: tests that need ${name} will be skipped: Go is not installed`);
    return;
  }
  const scratch = path.join(top, '.cache', `${name}.module`);
  mkdirSync(scratch, { recursive: true });
  if (source) copyFileSync(path.join(top, source), path.join(scratch, path.basename(source)));
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod', ...settings };
  console.log(`go ${tests ? 'test -c' : 'build'} ${name} (${module}) ...`);
  for (const args of [
    ['mod', 'init', 'scratch'],
    tests ? ['get', '-t', module] : ['get', module],
    tests ? ['test', '-c', '-o', file, program] : ['build', ...flags, '-o', file, program],
  ]) {
    const made = args[0] === 'mod' && existsSync(path.join(scratch, 'go.mod'));
    if (!made && spawnSync(go, args, { cwd: scratch, stdio: ['ignore', 'ignore', 'inherit'], env }).status !== 0) {
      console.warn(`test: could not compile ${name}; its tests will be skipped`);
      return;
    }
  }
}

function check() {
  const bin = path.join(top, 'node_modules/.bin');
  step('type check', path.join(bin, 'tsc'), ['--noEmit']);
  step('format and lint', path.join(bin, 'biome'), ['check', '.']);
  step('the rooms', node, ['scripts/check-rooms.mjs']);
}

const args = process.argv.slice(2);
const quick = args.includes('--quick');
const files = args.filter((arg) => !arg.startsWith('--'));
try {
  if (!quick) installPrograms();
  prepare();
  if (!quick && !args.includes('--no-checks')) check();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`test: ${error.message}`);
  process.exit(1);
}
const patterns = files.length > 0 ? files : ['packages/*/src/**/*.test.ts', 'test/**/*.test.ts'];
const concurrency = args.includes('--one-at-a-time') ? 1 : 2;
const timeout = args.find((arg) => arg.startsWith('--timeout='))?.split('=')[1] ?? '600000';
const limits = [`--test-concurrency=${concurrency}`, `--test-timeout=${timeout}`];
const result = spawnSync(node, ['--test', ...limits, ...patterns], {
  cwd: top,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin` },
});
process.exit(result.status ?? 1);
