// containerd's own tests of CRI and NRI (its package `integration`), against this daemon.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { bin } from '../lib/daemon.ts';
import { fillIntegrationImages } from '../lib/integration-images.ts';
import {
  failpoint,
  IntegrationSuite,
  ipamDirectory,
  missingForSuite,
  newRunc,
  nriSocket,
  ownDaemonConfig,
  suiteTables,
} from '../lib/integration-suite.ts';
import type { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = CriLab.missing() || missingForSuite();

/** Begins a command that sees a directory in another place. */
function shown(directory: string, place: string): string[] {
  const script = `mkdir -p ${place} && mount --bind ${directory} ${place} && exec "$@"`;
  return ['unshare', '--mount', 'sh', '-c', script, 'sh'];
}

/** Have runs of their own. */
const elsewhere = [
  'TestNri',
  'TestUpdatePodSandbox',
  // Want a runtime that maps mounts.
  'TestPodUserNS',
  'TestIssue10598',
  'TestUserns',
  // Ask the shim of a pod at the address that containerd's shims have.
  'TestContainerTTYLeakAfterExit',
  'TestRuntimeHandler$',
  'TestIssue7496$',
  // Shows a program of the host's /usr/local/bin to the container.
  'TestIssue10244LoopbackV2',
];

/** Cannot pass here, whoever the daemon is. */
const impossible = [
  // Takes the default runtime, Debian's runc, which maps no mounts.
  'TestImageVolumeWithUserNamespace',
  // Runs containerd's services in its own process.
  'TestCRIImagePullTimeout',
  // Fetch releases of containerd from GitHub.
  'TestIssue10467',
  'TestUpgrade',
  // Finds a pipe in containerd's shim under containerd 2.3.4 too.
  'TestContainerIOLeakAfterStartFailed',
  // Signals once, when the container has begun, which may not have set its traps yet.
  'TestContainerStopSignals',
];

/** Want a pod in the list whose making has failed, or was cut off by the daemon's end. Here such a pod is taken down, and not in it. */
const takenDown = [
  'TestRunPodSandboxWithShimDeleteFailure',
  'TestRunPodSandboxWithShimStartAndTeardownCNIFailure',
  'TestRunPodSandboxAndTeardownCNISlow',
  'TestSandboxStopWithNilCNIResult',
  'TestContainerdRestartSandboxRecover',
];

describe('containerd’s integration tests', { skip }, () => {
  const temp = makeTempDir('integration');
  // Root of a user namespace has to reach its root file system.
  chmodSync(temp.path, 0o711);
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantryint0', subnet: '10.214.0.0/16', ipamDirectory, plugins: failpoint },
    suiteTables(temp.path),
  );
  let suite: IntegrationSuite;

  before(async () => {
    lab.daemon.nriSocket = nriSocket;
    let registry!: TestRegistry;
    await lab.start(async (started) => {
      registry = started;
      await fillIntegrationImages(path.join(temp.path, 'layouts'), registry);
    });
    const own = { command: bin.gantryd, config: ownDaemonConfig(temp.path), shim: bin.shim };
    suite = await IntegrationSuite.start(temp.path, lab.daemon, registry, own);
  });
  after(async () => {
    await suite?.close();
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  /** What failed is run once more: the suite waits for fixed times here and there, which a busy machine oversteps. */
  async function passed(filter: readonly string[], before?: readonly string[]): Promise<string[]> {
    const { results, output } = await suite.run(filter, before);
    assert.match(output, /^(PASS|FAIL)$/m, output.slice(-20_000));
    const failed = [...results]
      .filter(([name, result]) => result === 'FAIL' && !name.includes('/'))
      .map(([name]) => name);
    if (failed.length > 0) {
      console.log(`once more: ${failed.join(', ')}\n${output.match(/^\s*Error:[\s\S]*?Test:.*$/gm)?.join('\n')}`);
      const flags = filter.slice(
        0,
        filter.findIndex((part) => part.startsWith('-test.')),
      );
      const again = await suite.run([...flags, '-test.run', `^(${failed.join('|')})$`], before);
      for (const [name, result] of again.results) results.set(name, result);
      const still = failed.filter((name) => results.get(name) !== 'PASS');
      assert.deepEqual(still, [], again.output.slice(-20_000));
    }
    const skipped = [...results].filter(([, result]) => result === 'SKIP').map(([name]) => name);
    if (skipped.length > 0) console.log(`skipped: ${skipped.join(', ')}`);
    return [...results].filter(([name, result]) => result === 'PASS' && !name.includes('/')).map(([name]) => name);
  }

  test('NRI: plugins on the reference’s stub, with pods and containers, updates and restarts', async () => {
    const names = await passed(['-test.run', '^(TestNri|TestUpdatePodSandbox)']);
    // Two need several NUMA nodes, two several processors.
    assert.ok(names.length >= 12, names.join());
  });

  const slow = process.env['GANTRY_SUITES'] ? false : 'it takes minutes: set GANTRY_SUITES=1';
  test('CRI: all that can run here', { skip: slow }, async () => {
    const names = await passed(['-test.skip', [...elsewhere, ...impossible, ...takenDown].join('|')]);
    assert.ok(names.length >= 48, `${names.length}: ${names.join()}`);
  });

  test('CRI: with shims of containerd’s own', { skip: slow }, async () => {
    const names = existsSync('/usr/bin/strace') ? 'TestIssue7496|TestRuntimeHandler' : 'TestRuntimeHandler';
    const flags = ['-runtime-handler', 'own-shims'];
    // It looks for their sockets where containerd has them.
    const made = path.join(lab.daemon.state, 's');
    mkdirSync(made, { recursive: true });
    const sockets = shown(made, '/run/containerd/s');
    // The other part of it ends its input at once, at which that shim hangs up on the process, be it ready or not.
    const run = `^(TestContainerTTYLeakAfterExit|TestContainerDrainExec.*|${names})$/^ttyOnly$`;
    await passed([...flags, '-test.run', run], sockets);
  });

  test('CRI: the loopback device of a pod, set up by a plugin and by the daemon', { skip: slow }, async () => {
    const names = await passed(['-test.run', '^TestIssue10244LoopbackV2$'], shown(failpoint, '/usr/local/bin'));
    assert.deepEqual(names, ['TestIssue10244LoopbackV2']);
  });

  const older = existsSync(newRunc) ? slow : 'a newer runc is not in .cache/go-bin/new';
  test('CRI: user namespaces, with a runc that maps mounts', { skip: older }, async () => {
    const names = await passed([
      '-runtime-handler',
      'newer',
      '-test.run',
      '^(TestPodUserNS|TestIssue10598|TestUserns.*)$',
    ]);
    assert.deepEqual(names.length, 3, names.join());
  });
});
