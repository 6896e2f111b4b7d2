import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Command, type Invocation, parseDuration, runCommand, UsageError } from './command.ts';
import { narrow, tabbed, table } from './table.ts';
import { binarySize, decimalSize, humanDuration, labelList, parseLabels } from './units.ts';

function program(seen: Invocation[]): Command {
  return {
    name: 'ctr',
    usage: 'test',
    flags: [
      {
        name: 'namespace',
        aliases: ['n'],
        kind: 'string',
        usage: 'namespace',
        default: 'default',
        env: ['GANTRY_TEST_NS'],
      },
    ],
    commands: [
      {
        name: 'run',
        usage: 'run a container',
        example: 'ctr run --rm busybox c1 true',
        flags: [
          { name: 'rm', kind: 'bool', usage: 'remove' },
          { name: 'env', kind: 'strings', usage: 'environment' },
          { name: 'timeout', kind: 'duration', usage: 'time', default: '1s' },
        ],
        async run(invocation) {
          seen.push(invocation);
          return 3;
        },
      },
    ],
  };
}

test('flags stop at the first argument, so that the container keeps its own', async () => {
  const seen: Invocation[] = [];
  const code = await runCommand(
    program(seen),
    ['-n', 'x', 'run', '--rm', '--env', 'A=1', '-env=B=2', 'image', 'id', 'ls', '-l'],
    () => undefined,
  );
  assert.equal(code, 3);
  const [invocation] = seen;
  assert.deepEqual(invocation?.args, ['image', 'id', 'ls', '-l']);
  assert.equal(invocation?.string('namespace'), 'x');
  assert.equal(invocation?.bool('rm'), true);
  assert.deepEqual(invocation?.strings('env'), ['A=1', 'B=2']);
  assert.equal(invocation?.number('timeout'), 1000);
  assert.equal(invocation?.isSet('timeout'), false);
});

test('the environment stands in for a flag that is not given', async () => {
  const seen: Invocation[] = [];
  process.env['GANTRY_TEST_NS'] = 'env';
  try {
    await runCommand(program(seen), ['run', 'a'], () => undefined);
    await runCommand(program(seen), ['--namespace', 'flag', 'run', 'a'], () => undefined);
  } finally {
    delete process.env['GANTRY_TEST_NS'];
  }
  assert.deepEqual(
    seen.map((invocation) => invocation.string('namespace')),
    ['env', 'flag'],
  );
});

test('an unknown flag, a missing value and a bad number are usage errors', async () => {
  for (const argv of [
    ['run', '--nope'],
    ['run', '--env'],
    ['run', '--timeout', 'soon'],
    ['run', '--rm=maybe'],
    ['walk'],
  ]) {
    await assert.rejects(
      runCommand(program([]), argv, () => undefined),
      UsageError,
      argv.join(' '),
    );
  }
});

test('help names every command and flag, with an example', async () => {
  let text = '';
  await runCommand(program([]), ['run', '--help'], (part) => {
    text += part;
  });
  assert.match(text, /ctr run --rm busybox c1 true/);
  assert.match(text, /--timeout value {2,}time \(default: 1s\)/);
});

test('durations are Go’s', () => {
  assert.equal(parseDuration('1h1m1.5s'), 3_661_500);
  assert.equal(parseDuration('250ms'), 250);
  assert.throws(() => parseDuration('5'), UsageError);
});

test('tables align as tabwriter does', () => {
  assert.equal(
    table(
      [
        ['A', 'B', ''],
        ['long', 'x', ''],
      ],
      narrow,
    ),
    'A    B \nlong x \n',
  );
  assert.equal(
    table(
      [
        ['DIGEST', 'SIZE'],
        ['sha256:0123456789', '1B'],
      ],
      tabbed,
    ),
    'DIGEST\t\t\tSIZE\nsha256:0123456789\t1B\n',
  );
});

test('sizes, ages and labels read as ctr prints them', () => {
  assert.equal(binarySize(3_587_480), '3.4 MiB');
  assert.equal(decimalSize(3_587_480), '3.587MB');
  assert.equal(decimalSize(176), '176B');
  assert.equal(humanDuration(10), 'Less than a second');
  assert.equal(humanDuration(3_600_000), 'About an hour');
  assert.equal(labelList({ b: '2', a: '1' }), 'a=1,b=2');
  assert.deepEqual(parseLabels(['a=b=c', 'd']), { a: 'b=c', d: '' });
});
