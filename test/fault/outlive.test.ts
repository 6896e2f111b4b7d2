import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../lib/processes.ts';
import { Churn } from './outlive-churn.ts';
import { exitCodesKept, OutliveLab, type Victim } from './outlive-lab.ts';
import { type Part, Player } from './player.ts';
import { Random } from './random.ts';
import { faultRounds, longOnly } from './rounds.ts';

/**
 * `kill -9` of the daemon, of the shim, and of both, at random moments of a busy run with many containers: they all go on, under the
 * same numbers, and with them their output, terminals and input; what ended meanwhile is told with its code and time.
 */
const rounds = faultRounds(4);
const many = longOnly ? 20 : 100;
/** How long a daemon that takes connections may take to have every task. */
const listedMs = 2000;
const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('containers outlive daemon and shim', { skip }, () => {
  const lab = new OutliveLab();
  const random = Random.fromEnvironment();
  const players: Player[] = [];
  let made = 0;
  /** The time of boot, by which what containers say of their uptime is understood. */
  const bootMs = Date.now() - Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;

  before(async () => {
    await lab.open();
    await Promise.all(
      [0, 1, 2, 3].map(async () => {
        while (players.length + 4 <= many) await addPlayer('');
      }),
    );
    while (players.length < many) await addPlayer('');
    // Some more processes in containers that are there.
    for (const part of ['writes', 'answers', 'copies', 'writes'] as const) await addPlayer(hosts()[0]!.id, part);
  });

  after(async () => {
    for (const player of players) player.close();
    await lab.close();
  });

  /** Containers whose own process goes on whoever dies. */
  const hosts = () => players.filter(({ execId, part }) => execId === '' && part === 'writes');

  /** Of ten containers six write, two have terminals, two an input. @param host a container for an exec, '' for a new container */
  async function addPlayer(host: string, wanted?: Part): Promise<void> {
    const number = ++made;
    const part = wanted ?? (['writes', 'writes', 'answers', 'writes', 'copies'] as const)[number % 5]!;
    const code = random.between(1, 100);
    const player =
      host === '' ? new Player(lab, `p${number}`, '', part, code) : new Player(lab, host, `e${number}`, part, code);
    await player.start();
    players.push(player);
  }

  test(`${rounds} deaths at random moments with ${many} containers`, {
    timeout: 60_000 + rounds * 60_000,
  }, async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    const order: Victim[] = ['daemon', 'shim', 'both'];
    for (let round = 1; round <= rounds; round++) {
      const victim = round <= order.length ? order[round - 1]! : random.pick(order);
      try {
        await oneRound(round, victim, t);
      } catch (error) {
        const told = `${lab.log()}\n${lab.shimLog()}`;
        throw new Error(
          `round ${round} (${victim}), GANTRY_FAULT_SEED=${random.seed}: ${(error as Error).stack}\n${told}`,
          {
            cause: error,
          },
        );
      }
    }
  });

  async function oneRound(round: number, victim: Victim, t: TestContext): Promise<void> {
    const churn = new Churn(lab, random, players, round, victim);
    await sleep(random.between(20, 800));
    churn.dying();
    const shims = lab.shims().map(({ pid }) => pid);
    for (const player of players) player.suffer(victim);
    await lab.kill(victim);
    if (victim !== 'daemon' && exitCodesKept === false) for (const player of players) player.mayBeUnknown = true;
    if (victim === 'both') for (const player of players) player.mayBeUnknown = true;
    // Something happens while nobody looks.
    await sleep(random.between(0, 600));
    const startedMs = victim === 'shim' ? 0 : await lab.start();
    const begun = performance.now();
    const expected = players.filter(({ execId }) => execId === '');
    await eventually(
      'every container is listed',
      async () => {
        const { tasks } = await lab.connection.tasks.list({});
        const there = new Map(tasks.map(({ id, pid }) => [id, pid]));
        return expected.every(({ id, pid }) => there.get(id) === pid) ? true : undefined;
      },
      victim === 'shim' ? 30_000 : listedMs,
    );
    const seenMs = performance.now() - begun;
    if (victim !== 'daemon') {
      await eventually('another shim', () => {
        const now = lab.shims();
        return now.length > 0 && now.every(({ pid }) => !shims.includes(pid)) ? true : undefined;
      });
    }
    await churn.stop();
    t.diagnostic(
      `kill ${round}: ${victim}; ${startedMs > 0 ? `ready after ${startedMs.toFixed(0)} ms, ` : ''}all listed after ${seenMs.toFixed(0)} ms`,
    );
    assert.deepEqual(churn.failures, []);
    await churn.settle(bootMs);
    await Promise.all(players.map((player) => player.check()));
    await replace(victim);
    await lab.survey(players.filter(({ execId }) => execId === '').map(({ id }) => id));
  }

  /** New ones for those that were lost, and for a few that end in their own way; an exec's place is taken by an exec. */
  async function replace(victim: Victim): Promise<void> {
    const leaving = players.filter((player) => player.lost);
    for (let count = 0; count < 3; count++) leaving.push(random.pick(players.filter((player) => !player.lost)));
    // With a container its execs go.
    const gone = new Set(leaving);
    for (const player of players)
      if ([...gone].some((other) => other.execId === '' && other.id === player.id)) gone.add(player);
    const order = [...gone].sort((a, b) => (a.execId === '' ? 1 : 0) - (b.execId === '' ? 1 : 0));
    for (const player of order) {
      players.splice(players.indexOf(player), 1);
      await player.end();
    }
    for (const { execId, part } of order) await addPlayer(execId === '' ? '' : random.pick(hosts()).id, part);
    assert.ok(victim !== 'daemon' || order.every((player) => !player.lost));
  }

  test('leaves nothing behind', async () => {
    const order = players.splice(0).sort((a, b) => (a.execId === '' ? 1 : 0) - (b.execId === '' ? 1 : 0));
    for (const player of order) await player.end();
    await lab.leavesNothing();
  });
});
