// All that a person does with crictl at a node, done here and under containerd 2.3.4, and what both have printed laid side by side.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { CriLab } from '../lib/cri-lab.ts';
import { pathsOf, plain } from '../lib/crictl-output.ts';
import { CrictlWalk, type Step } from '../lib/crictl-walk.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

/** Commands that end otherwise than under containerd, and why; their words are not compared either. */
const otherEnd: Record<string, string> = {
  statsp: 'containerd fails for a pod without a cgroup parent',
  'statsp -o json': 'the same',
  'exec -i --transport websocket MAIN wc -c': 'containerd refuses WebSocket clients that name no origin',
};

/** Commands that print something else, and why. */
const otherWords: Record<string, string> = {
  version: 'ours says that it is Gantry',
  'config --list': 'the socket has another name',
  stats: 'numbers',
  'stats --id MAIN': 'numbers',
  'pull no-such-image:1': 'ours says of each registry that was tried what it answered',
  events: 'looked at by its own test',
  'logs --since 2000-01-01T00:00:00Z --limit-bytes 5 FIRST': 'which of two streams is read first is chance',
  'logs --tail 1 FIRST': 'the same',
  'start FIRST': 'ours has a code (FailedPrecondition) where containerd has Unknown',
  'logs --reopen FIRST': 'the same',
  'exec --sync MAIN true': 'the same',
  'rmp POD': 'ours says which pod is not there',
};

/** Places in JSON outputs that containerd fills and this does not, by a part of their path, and why. */
const notTold: Record<string, string> = {
  '.config.containerdEndpoint': 'nothing is read from such a setting',
  '.config.containerdRootDir': 'the same',
  '.info.cniResult.': 'that of a pod that is stopped: its network is given back, and nothing is left to tell of',
};

describe('a walk with crictl', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('crictl');
  const lab = new CriLab(temp.path, { bridge: 'gantrycri2', subnet: '10.221.0.0/24' });
  const ours = new CrictlWalk(lab.daemon.address, path.join(temp.path, 'ours'));
  const stdoutOf = (command: string) => ours.step(command).stdout;
  const jsonOf = <T>(command: string) => JSON.parse(stdoutOf(command)) as T;

  before(async () => {
    await lab.start();
    await ours.walk();
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f');
    await lab.close();
    await temp.remove();
  });

  test('every command of crictl that a runtime answers is in it', async () => {
    const help = (await lab.crictl(['--help'])).stdout;
    const list = /^COMMANDS:\n([\s\S]*?)\n\n/m.exec(help)?.[1] ?? assert.fail(help);
    const commands = [...list.matchAll(/^ {3}([a-z-]+)/gm)].map(([, name]) => name!);
    const elsewhere = new Set(['completion', 'help', 'checkpoint']);
    const walked = new Set(ours.steps.map(({ command }) => command.split(' ')[0]));
    assert.ok(commands.length > 30, help);
    assert.deepEqual(
      commands.filter((name) => !walked.has(name) && !elsewhere.has(name)),
      [],
    );
  });

  test('execs and attaching: output, errors, exit codes, a terminal, a time-out', () => {
    assert.equal(stdoutOf('exec MAIN echo hello'), 'hello\n');
    assert.equal(stdoutOf('exec --sync MAIN sh -c echo out; echo err >&2'), 'out\n\nerr\n\n');
    assert.match(ours.step('exec --sync MAIN sh -c exit 7').stderr, /exited with 7/);
    assert.match(ours.step('exec MAIN sh -c exit 7').stderr, /command terminated with exit code 7/);
    assert.match(ours.step('exec --sync --timeout 1').stderr, /timed out after 1s/);
    assert.equal(stdoutOf('exec -i MAIN wc -c'), '0\n');
    assert.equal(stdoutOf('exec -i --transport websocket MAIN wc -c'), '0\n');
    assert.match(stdoutOf('exec -it'), /ready\r\ntyped\r\n40 100\r\n\/dev\/pts\/0/);
    assert.match(stdoutOf('attach'), /got attached/);
    assert.equal(stdoutOf('port-forward'), 'HTTP 404\n');
  });

  test('logs: all, some, of the one before, followed', () => {
    assert.deepEqual(stdoutOf('logs FIRST').split('\n').sort(), ['', 'one', 'three', 'two']);
    assert.equal(ours.step('logs FIRST').stderr, 'err\n');
    assert.match(stdoutOf('logs --timestamps FIRST'), /^\d{4}-\d\d-\d\dT[\d:.]+\S* one$/m);
    assert.equal(ours.step('logs --stream stderr FIRST').stderr, 'err\n');
    assert.match(stdoutOf('logs -p MAIN'), /^one$/m);
    assert.match(stdoutOf('logs -f MAIN'), /up\n[\s\S]*got attached/);
  });

  test('numbers and changes', () => {
    const { stats } = jsonOf<{ stats: { memory?: { workingSetBytes: { value: string } } }[] }>('stats -o json');
    // One of the three has ended.
    const used = stats.flatMap(({ memory }) => (memory ? [Number(memory.workingSetBytes.value)] : []));
    assert.equal(used.length, 2);
    for (const bytes of used) assert.ok(bytes > 0);
    assert.equal(jsonOf<{ stats: object[] }>('statsp -o json').stats.length, 2);
    const { descriptors } = jsonOf<{ descriptors: { name: string }[] }>('metricdescs');
    assert.ok(descriptors.some(({ name }) => name === 'container_cpu_usage_seconds_total'));
    const resources = jsonOf<{ linux: object }>('inspect -o go-template');
    assert.deepEqual(resources.linux, {
      ...resources.linux,
      memoryLimitInBytes: '67108864',
      cpuQuota: '20000',
      cpuPeriod: '100000',
    });
  });

  test('events: each container’s life in order', () => {
    const types = [...stdoutOf('events').matchAll(/"containerEventType": "CONTAINER_(\w+)_EVENT"/g)].map(
      ([, type]) => type,
    );
    for (const type of ['CREATED', 'STARTED', 'STOPPED', 'DELETED']) assert.ok(types.includes(type), `${types}`);
    assert.ok(types.indexOf('CREATED') < types.indexOf('STARTED'));
    assert.ok(types.indexOf('STARTED') < types.indexOf('STOPPED'));
    assert.ok(types.indexOf('STOPPED') < types.indexOf('DELETED'));
  });

  test('at the end nothing is there but the image that holds pods', () => {
    const end = ours.steps.slice(-4);
    assert.match(end[3]!.stdout, /^registry\.k8s\.io\/pause +3\.10\.2 .*true *$/m);
    assert.equal(end[3]!.stdout.trim().split('\n').length, 2);
  });

  describe('beside containerd 2.3.4', { skip: TestContainerd.missing(containerd2) }, () => {
    const containerd = new TestContainerd(path.join(temp.path, 'c'), containerd2, {}, lab.containerdConfig);
    const theirs = new CrictlWalk(containerd.address, path.join(temp.path, 'theirs'));
    before(async () => {
      await containerd.start();
      await theirs.walk();
    });
    after(async () => {
      await theirs.do('rmp', '-a', '-f');
      await containerd.stop();
    });

    const pairs = (): [Step, Step][] => ours.steps.map((step, at) => [step, theirs.steps[at]!]);

    test('every command ends as there', () => {
      assert.deepEqual(
        ours.steps.map(({ command }) => command).slice(1),
        theirs.steps.map(({ command }) => command).slice(1),
      );
      for (const [our, their] of pairs()) {
        if (!(our.command in otherEnd)) assert.equal(our.code, their.code, `${our.command}: ${our.stderr}`);
      }
    });

    test('and prints the same', () => {
      const different = pairs().flatMap(([our, their]) => {
        if ([otherEnd, otherWords].some((list) => our.command in list)) return [];
        if (isJson(our.stdout) && isJson(their.stdout)) return [];
        const [one, other] = [our, their].map(({ command, stdout, stderr }) => {
          const words = plain(stdout + stderr);
          // Which of two streams is read first is chance.
          return command.startsWith('logs ') ? words.split('\n').sort().join('\n') : words;
        });
        return one === other ? [] : [{ command: our.command, ours: one, theirs: other }];
      });
      assert.deepEqual(different, []);
    });

    test('and nothing is missing in what is JSON', () => {
      const missing = pairs().flatMap(([our, their]) => {
        if (our.command in otherEnd || our.command in otherWords || !isJson(our.stdout) || !isJson(their.stdout))
          return [];
        const known = pathsOf(our.stdout);
        return [...pathsOf(their.stdout)]
          .filter((place) => !known.has(place) && !Object.keys(notTold).some((part) => place.includes(part)))
          .map((place) => `${our.command}: ${place}`);
      });
      assert.deepEqual([...new Set(missing)], []);
    });
  });
});

function isJson(text: string): boolean {
  return text.startsWith('{');
}
