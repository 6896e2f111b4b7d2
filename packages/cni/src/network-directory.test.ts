import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetworkDirectory } from './network-directory.ts';

const quiet = { debug() {}, info() {}, warn() {} };

async function until(what: string, check: () => boolean): Promise<void> {
  const end = performance.now() + 60_000;
  while (!check()) {
    if (performance.now() > end) assert.fail(`not within a minute: ${what}`);
    await sleep(20);
  }
}

describe('a directory of networks is watched', () => {
  const top = mkdtempSync(path.join(tmpdir(), 'gantry-cni-watch-'));
  after(() => rmSync(top, { recursive: true }));
  const list = (name: string, more: object = {}) =>
    JSON.stringify({ cniVersion: '1.1.0', name, plugins: [{ type: 'p' }], ...more });

  test('files appear, change, are moved and removed; the directory too', async () => {
    const dir = path.join(top, 'etc/cni/net.d');
    const networks = new NetworkDirectory(dir, 1, quiet);
    const names = () => {
      try {
        return networks.networks().map(({ name, plugins }) => `${name}:${plugins.map(({ type }) => type)}`);
      } catch (error) {
        return (error as Error).message;
      }
    };
    const becomes = (what: string | string[]) =>
      until(`networks are ${what}`, () => JSON.stringify(names()) === JSON.stringify(what));
    const none = 'cni plugin not initialized';
    try {
      await networks.open();
      assert.deepEqual([statSync(dir).mode & 0o777, statSync(path.dirname(dir)).mode & 0o777], [0o700, 0o755]);
      assert.equal(names(), none);
      assert.equal(
        networks.loadStatus,
        `cni config load failed: no network config found in ${dir}: cni plugin not initialized: failed to load cni config`,
      );
      writeFileSync(path.join(dir, '10-a.conflist'), list('a'));
      await becomes(['a:p']);
      assert.equal(networks.loadStatus, 'OK');
      writeFileSync(path.join(dir, '10-a.conflist'), list('b'));
      await becomes(['b:p']);
      writeFileSync(path.join(top, 'moved'), list('c'));
      renameSync(path.join(top, 'moved'), path.join(dir, '05-c.conflist'));
      await becomes(['c:p']);
      rmSync(path.join(dir, '05-c.conflist'));
      await becomes(['b:p']);
      writeFileSync(path.join(dir, '00-bad.conflist'), '{');
      await becomes(none);
      assert.match(
        networks.loadStatus,
        /failed to load CNI config list file .*00-bad\.conflist: .*: invalid cni config/,
      );
      rmSync(path.join(dir, '00-bad.conflist'));
      await becomes(['b:p']);
      mkdirSync(path.join(dir, 'b'));
      writeFileSync(path.join(dir, 'b/10-more.conf'), JSON.stringify({ type: 'q' }));
      await becomes(['b:p,q']);
      writeFileSync(path.join(dir, 'b/20-more.conf'), JSON.stringify({ type: 'r' }));
      await becomes(['b:p,q,r']);
      rmSync(dir, { recursive: true });
      await becomes(none);
      mkdirSync(dir);
      writeFileSync(path.join(dir, '10-d.conflist'), list('d'));
      await becomes(['d:p']);
      renameSync(dir, path.join(top, 'elsewhere'));
      await becomes(none);
      renameSync(path.join(top, 'elsewhere'), dir);
      await becomes(['d:p']);
      rmSync(path.join(dir, '10-d.conflist'));
      await becomes(none);
    } finally {
      networks.close();
    }
  });
});
