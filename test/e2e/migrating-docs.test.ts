// The commands in docs/migrating.md, run one after the other on a node of their own: a mount namespace whose containerd and gantryd have
// their default places.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { commandsOf, daemonPlaces, emptyPlaces, nodePrograms } from '../lib/documented-node.ts';
import { buildTestImages } from '../lib/images.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const top = path.resolve(import.meta.dirname, '../..');
const page = readFileSync(path.join(top, 'docs/migrating.md'), 'utf8');
const blocks = commandsOf(page);

const recent = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const skip = process.getuid?.() === 0 ? TestContainerd.missing(containerd2) || recent.missing || false : 'needs root';

describe('docs/migrating.md', { skip }, () => {
  const temp = makeTempDir('guide');
  /** Mount points that this machine did not have. */
  const made = daemonPlaces.filter((place) => !existsSync(place));
  after(async () => {
    await temp.remove();
    for (const place of made) rmdirSync(place);
  });

  test('its commands lead there and back', async () => {
    const { busybox } = await buildTestImages(temp.path, { few: true });
    await run('tar', ['-C', busybox, '-cf', `${busybox}.tar`, '.']);
    const programs = path.join(temp.path, 'bin');
    mkdirSync(programs);
    nodePrograms(programs, 'ctr -a');
    const old = `version = 2
# what would reach beyond this node
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri']
`;
    // Named by the process, because containerd's shims keep containers of all daemons in one place.
    const box = `guide-${process.pid}`;
    const asBefore = `test "$(ctr tasks ls -q)" = ${box} && ctr tasks ls | grep -q "$PID"`;
    const script = [
      'set -euo pipefail',
      ...emptyPlaces(daemonPlaces),
      `cat > /etc/containerd/config.toml <<'END'\n${old}END`,
      'systemctl start containerd',
      `ctr images import --index-name docker.io/test/busybox:1 '${busybox}.tar' >/dev/null`,
      `ctr run -d docker.io/test/busybox:1 ${box} sleep 100000`,
      `PID=$(ctr tasks ls | awk '/${box}/ { print $2 }')`,
      ...blocks.flatMap((block) => [`set -x\n${block}\n{ set +x; } 2>/dev/null`, 'sleep 0']),
      asBefore,
      `ctr tasks rm -f ${box}`,
      'systemctl stop containerd',
    ].join('\n');
    const { status, stdout, stderr } = spawnSync('unshare', ['-m', '--propagation', 'private', 'bash', '-c', script], {
      encoding: 'utf8',
      timeout: 300_000,
      cwd: temp.path,
      env: {
        ...process.env,
        NODE_DIR: temp.path,
        PATH: `${programs}:${path.dirname(containerd2)}:${process.env['PATH']}`,
      },
    });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    // Under containerd, under gantryd, back, switched, and back again.
    const pids = [...stdout.matchAll(new RegExp(`^${box} +(\\d+) +RUNNING`, 'gm'))].map(([, pid]) => pid);
    assert.equal(pids.length, 5, stdout);
    assert.equal(new Set(pids).size, 1);
    assert.match(stdout, /^Taken over\. Start gantryd now/m);
    assert.match(stdout, /^Nothing has changed since it was taken over/m);
    assert.match(readFileSync(path.join(temp.path, '3/config.toml'), 'utf8'), /^# what would reach beyond this node$/m);
  });
});
