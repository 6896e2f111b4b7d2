import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromTimestamp, type Time, toMillis } from '@gantry/api';
import { exitCodesKept, type OutliveLab, unknownExit, type Victim } from './outlive-lab.ts';
import type { Player } from './player.ts';
import type { Random } from './random.ts';
import type { OutputReader } from './stream-client.ts';

/** How far the time of an exit may be from when the process said that it ends, on a busy machine. Milliseconds. */
const timeToleranceMs = 5000;

/** A container that ends by itself, and whose end is looked at only after the death. */
interface Ender {
  id: string;
  code: number;
  output: OutputReader;
}

/**
 * Clients at work while processes are killed under them, each in a lane of its own: containers and execs that come and go with all their
 * output, lines to terminals and inputs, containers that end by themselves. Whatever a death cuts off is cleared up afterwards.
 */
export class Churn {
  readonly failures: string[] = [];
  readonly #lab: OutliveLab;
  readonly #random: Random;
  readonly #players: readonly Player[];
  readonly #victim: Victim;
  readonly #lanes: Promise<void>[];
  readonly #containers = new Set<string>();
  readonly #execs = new Map<string, string>();
  readonly #outputs = new Set<OutputReader>();
  readonly #enders: Ender[] = [];
  readonly #round: number;
  #stopping = false;
  #dying = false;
  #number = 0;

  constructor(lab: OutliveLab, random: Random, players: readonly Player[], round: number, victim: Victim) {
    this.#lab = lab;
    this.#random = random;
    this.#players = players;
    this.#round = round;
    this.#victim = victim;
    this.#lanes = [
      this.#lane(() => this.#short()),
      this.#lane(() => this.#exec()),
      this.#lane(() => this.#poke()),
      this.#lane(() => this.#end()),
    ];
  }

  /** From now on a call may fail because somebody dies. */
  dying(): void {
    this.#dying = true;
  }

  /** What is under way comes to its end, one way or the other. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#lanes);
  }

  #lane(step: () => Promise<void>): Promise<void> {
    const run = async (): Promise<void> => {
      while (!this.#stopping) {
        try {
          await step();
        } catch (error) {
          if (!this.#dying || error instanceof assert.AssertionError)
            this.failures.push((error as Error).stack ?? String(error));
          return;
        }
      }
    };
    return run();
  }

  #reader(name: string): OutputReader {
    const output = this.#lab.reader(name);
    this.#outputs.add(output);
    return output;
  }

  #forget(output: OutputReader): void {
    output.close();
    this.#outputs.delete(output);
  }

  /** Codes that a process which was to end with one may be told to have ended with. */
  #codes(code: number): number[] {
    const sure = !this.#dying || this.#victim === 'daemon' || (this.#victim === 'shim' && exitCodesKept);
    return sure ? [code] : [code, unknownExit];
  }

  /** A container from create to delete. Now and then it writes megabytes, its reader is slow, and Delete follows Wait at once. */
  async #short(): Promise<void> {
    const { tasks, containers } = this.#lab.connection;
    const id = `short-${this.#round}-${++this.#number}`;
    const code = this.#random.between(1, 100);
    const lines = this.#random.chance(0.3) ? this.#random.between(100_000, 1_200_000) : this.#random.between(1, 2000);
    const output = this.#reader(id);
    this.#containers.add(id);
    await this.#lab.create(id, `seq 0 ${lines - 1}; exit ${code}`, { stdout: output.path });
    await tasks.start({ containerId: id });
    output.letGo();
    if (this.#random.chance(0.3)) void output.pause(this.#random.between(50, 1000));
    const { exitStatus } = await tasks.wait({ containerId: id }, { timeoutMs: 60_000 });
    await tasks.delete({ containerId: id });
    await containers.delete({ id });
    this.#containers.delete(id);
    await output.ended();
    assert.ok(this.#codes(code).includes(exitStatus), `${id}: exit status ${exitStatus}, not ${code}`);
    assert.equal(output.next, lines, `${id}: lines of output`);
    this.#forget(output);
  }

  /** The same with an exec, whose output is relayed. */
  async #exec(): Promise<void> {
    const { tasks } = this.#lab.connection;
    const hosts = this.#players.filter((player) => player.execId === '' && !player.lost);
    const { id: containerId } = this.#random.pick(hosts);
    const execId = `exec-${this.#round}-${++this.#number}`;
    const code = this.#random.between(1, 100);
    const lines = this.#random.chance(0.2) ? this.#random.between(100_000, 1_200_000) : this.#random.between(1, 2000);
    const output = this.#reader(execId);
    this.#execs.set(execId, containerId);
    const command = `seq 0 ${lines - 1}; exit ${code}`;
    await tasks.exec({ containerId, execId, spec: this.#lab.execSpec(command), stdout: output.path });
    await tasks.start({ containerId, execId });
    output.letGo();
    if (this.#random.chance(0.3)) void output.pause(this.#random.between(50, 1000));
    const { exitStatus } = await tasks.wait({ containerId, execId }, { timeoutMs: 60_000 });
    await tasks.deleteProcess({ containerId, execId });
    this.#execs.delete(execId);
    await output.ended();
    assert.ok(this.#codes(code).includes(exitStatus), `${execId}: exit status ${exitStatus}, not ${code}`);
    // With both dead, what had ended had nobody left who held its pipe.
    if (!this.#dying || this.#victim !== 'both') assert.equal(output.next, lines, `${execId}: lines of output`);
    this.#forget(output);
  }

  async #poke(): Promise<void> {
    await this.#random.pick(this.#players).poke();
    await sleep(this.#random.between(1, 30));
  }

  /** Starts one that ends by itself, most likely while somebody is dead. */
  async #end(): Promise<void> {
    const id = `ender-${this.#round}-${++this.#number}`;
    const code = this.#random.between(1, 100);
    const output = this.#reader(id);
    this.#containers.add(id);
    const pause = (this.#random.between(0, 15) / 10).toFixed(1);
    await this.#lab.create(id, `sleep ${pause}; cat /proc/uptime; exit ${code}`, { stdout: output.path });
    await this.#lab.connection.tasks.start({ containerId: id });
    output.letGo();
    this.#enders.push({ id, code, output });
    await sleep(this.#random.between(50, 200));
  }

  /** After everybody is back: those that ended meanwhile have their code and their time, and what was cut off is removed. */
  async settle(bootMs: number): Promise<void> {
    const { tasks } = this.#lab.connection;
    for (const { id, code, output } of this.#enders) {
      const { exitStatus, exitedAt } = await tasks.wait({ containerId: id }, { timeoutMs: 60_000 });
      const { process } = await tasks.get({ containerId: id });
      assert.equal(process?.exitStatus, exitStatus, `${id}: state and wait`);
      const deleted = await tasks.delete({ containerId: id });
      assert.deepEqual([deleted.exitStatus, deleted.exitedAt], [exitStatus, exitedAt], `${id}: delete and wait`);
      await output.ended();
      assert.ok(this.#codes(code).includes(exitStatus), `${id}: exit status ${exitStatus}, not ${code}`);
      const said = bootMs + Number(/^[\d.]+/.exec(output.words.at(-1) ?? '')?.[0]) * 1000;
      const off = toMillis(fromTimestamp(exitedAt) as Time) - said;
      // Where both were dead it is the time at which it was noticed.
      if (this.#victim !== 'both')
        assert.ok(Math.abs(off) < timeToleranceMs, `${id}: told to have ended ${off} ms after its last word`);
      else assert.ok(off > -timeToleranceMs, `${id}: told to have ended ${-off} ms before its last word`);
    }
    for (const [execId, containerId] of this.#execs) await this.#lab.removeExec(containerId, execId);
    for (const id of this.#containers) await this.#lab.remove(id);
    for (const output of [...this.#outputs]) {
      output.check();
      this.#forget(output);
    }
  }
}
