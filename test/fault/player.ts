import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import { mkfifo } from '@gantry/sys';
import { type OutliveLab, unknownExit, type Victim } from './outlive-lab.ts';
import { type OutputReader, writeInput } from './stream-client.ts';

/**
 * What a process does that has to go on: it writes a sequence by itself, answers each line on a terminal, or copies its input. Asked
 * to end by SIGTERM the first says so with its last line and its code.
 */
export type Part = 'writes' | 'answers' | 'copies';

const commands: Record<Part, (code: number) => string> = {
  writes: (code) =>
    `trap 'echo bye; exit ${code}' TERM; i=0; while :; do for k in 1 2 3 4 5 6 7 8; do echo $i; i=$((i+1)); done; sleep 0.2; done`,
  answers: (code) => `stty -echo; while read -r line; do echo "got $line"; done; exit ${code}`,
  copies: (code) => `cat; exit ${code}`,
};

/** A long-lived process, a container's own or an exec, and the client that reads and writes its streams. */
export class Player {
  readonly id: string;
  /** '' for the container's own process. */
  readonly execId: string;
  readonly part: Part;
  readonly code: number;
  pid = 0;
  /** A terminal or an input that nobody held when daemon and shim died together. */
  lost = false;
  readonly #lab: OutliveLab;
  readonly #output: OutputReader;
  readonly #input: string;
  #sent = 0;

  constructor(lab: OutliveLab, id: string, execId: string, part: Part, code: number) {
    this.#lab = lab;
    this.id = id;
    this.execId = execId;
    this.part = part;
    this.code = code;
    const name = execId === '' ? id : `${id}-${execId}`;
    this.#output = lab.reader(`${name}-out`, part === 'answers' ? 'got ' : '');
    this.#input = part === 'writes' ? '' : lab.file(`${name}-in`);
    if (this.#input !== '') mkfifo(this.#input, 0o600);
  }

  get name(): string {
    return `${this.id} ${this.execId} (${this.part})`;
  }

  async start(): Promise<void> {
    const { tasks } = this.#lab.connection;
    const io = { stdin: this.#input, stdout: this.#output.path, terminal: this.part === 'answers' };
    const command = commands[this.part](this.code);
    const { id: containerId, execId } = this;
    if (execId === '') await this.#lab.create(containerId, command, io);
    else await tasks.exec({ containerId, execId, spec: this.#lab.execSpec(command, io.terminal), ...io });
    const { pid } = await tasks.start({ containerId, execId });
    this.pid = pid;
    this.#output.letGo();
  }

  /** Attaches to its input, writes a few lines, and leaves again. */
  async poke(): Promise<void> {
    if (this.part === 'writes' || this.lost) return;
    const lines = Array.from({ length: 20 }, () => `${this.#sent++}\n`);
    await writeInput(this.#input, lines.join(''));
  }

  /** It runs under the same number, and its output is whole and goes on. */
  async check(): Promise<void> {
    if (this.lost) return;
    const { process } = await this.#lab.connection.tasks.get({ containerId: this.id, execId: this.execId });
    assert.equal(Status[process!.status], 'RUNNING', this.name);
    assert.equal(process!.pid, this.pid, this.name);
    if (this.part === 'writes') await this.#output.reach(this.#output.next + 1);
    else {
      await this.poke();
      await this.#output.reach(this.#sent);
    }
  }

  /** What a death does to it that the promise does not cover: who keeps terminals and input has died too. */
  suffer(victim: Victim): void {
    if (victim !== 'both') return;
    if (this.part !== 'writes') this.lost = true;
    // Relayed output has an end for its reader when nobody holds it any more. What was written meanwhile is still to come.
    else if (this.execId !== '') this.#output.reattach();
  }

  /** Has it end in its own way, and everything of it removed. */
  async end(): Promise<void> {
    const { id: containerId, execId } = this;
    const { tasks, containers } = this.#lab.connection;
    if (this.lost) await (execId === '' ? this.#lab.remove(containerId) : this.#lab.removeExec(containerId, execId));
    if (!this.lost) {
      const exited = tasks.wait({ containerId, execId }, { timeoutMs: 60_000 });
      exited.catch(() => undefined);
      if (this.part === 'writes') await tasks.kill({ containerId, execId, signal: 15 });
      else if (this.part === 'answers') await writeInput(this.#input, '\x04');
      else await tasks.closeIO({ containerId, execId, stdin: true });
      const { exitStatus } = await exited;
      if (execId !== '') await tasks.deleteProcess({ containerId, execId });
      else {
        await tasks.delete({ containerId });
        await containers.delete({ id: containerId });
      }
      await this.#output.ended();
      assert.ok(
        [this.code, ...(this.mayBeUnknown ? [unknownExit] : [])].includes(exitStatus),
        `${this.name}: exit status ${exitStatus}, not ${this.code}`,
      );
      if (this.part === 'writes') assert.equal(this.#output.words.at(-1), 'bye', `${this.name}: its last line`);
      else assert.equal(this.#output.next, this.#sent, `${this.name}: answers`);
    }
    this.close();
  }

  /** Its shim died: on older kernels only a parent learns how a process ended. */
  mayBeUnknown = false;

  close(): void {
    this.#output.close();
    if (this.#input !== '') rmSync(this.#input, { force: true });
  }
}
