// Compiles a kubelet, which is no module that can be installed from outside: it names its own parts by a version that there is not, so
// each is replaced by the one of the same release. It takes some minutes.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const release = '36.1';

/** @param file where it goes @param scratch a directory for the module that it is compiled in @returns why it could not be, or undefined */
export function compileKubelet(file, scratch, go) {
  if (existsSync(file)) return undefined;
  if (!go) return 'Go is not installed';
  mkdirSync(scratch, { recursive: true });
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod' };
  const kubernetes = `k8s.io/kubernetes@v1.${release}`;
  writeFileSync(path.join(scratch, 'go.mod'), 'module scratch\n\ngo 1.26.0\n');
  const run = (args, stdout) =>
    spawnSync(go, args, { cwd: scratch, stdio: ['ignore', stdout, 'inherit'], env, encoding: 'utf8' });
  const downloaded = run(['mod', 'download', '-json', kubernetes], 'pipe');
  if (downloaded.status !== 0) return `${kubernetes} cannot be fetched`;
  const parts = [
    ...readFileSync(JSON.parse(downloaded.stdout).GoMod, 'utf8').matchAll(/^\s*(k8s\.io\/\S+) v0\.0\.0$/gm),
  ];
  const replaced = new Set(parts.map(([, name]) => `\t${name} => ${name} v0.${release}\n`));
  writeFileSync(
    path.join(scratch, 'go.mod'),
    `module scratch\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.${release}\n\nreplace (\n${[...replaced].join('')})\n`,
  );
  writeFileSync(
    path.join(scratch, 'tools.go'),
    '//go:build tools\n\npackage scratch\n\nimport _ "k8s.io/kubernetes/cmd/kubelet"\n',
  );
  const [minor] = release.split('.');
  const version = { gitVersion: `v1.${release}`, gitMajor: '1', gitMinor: minor };
  const flags = Object.entries(version).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`);
  console.log(`go build ${kubernetes} cmd/kubelet ...`);
  const built = run(
    ['build', '-ldflags', `-s -w ${flags.join(' ')}`, '-o', file, 'k8s.io/kubernetes/cmd/kubelet'],
    'ignore',
  );
  return built.status === 0 ? undefined : 'it does not compile';
}
