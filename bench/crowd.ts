import { run } from '../test/lib/processes.ts';
import { killTask, lanes, startSleeper, type Template } from './containers.ts';
import type { Peer } from './peers.ts';

/** Sleeping containers on one daemon, more and more of them. */
export class Crowd {
  readonly #peer: Peer;
  readonly #template: Template;
  #size = 0;

  constructor(peer: Peer, template: Template) {
    this.#peer = peer;
    this.#template = template;
  }

  /** Starts containers, four at a time, until there are so many. */
  async grow(size: number): Promise<void> {
    await lanes(4, async () => {
      while (this.#size < size) await startSleeper(this.#peer, this.#template, `idle${this.#size++}`);
    });
  }

  /** Proportional memory of daemon and shims, bytes, once what the starts left behind is gone. */
  async memory(): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, 4000));
    return this.#peer.memory();
  }

  /** Milliseconds of a list of all tasks, the median of five: as a call, and as a command of the client `ctr`. */
  async listTimes(ctr: string): Promise<{ call: number; command: number }> {
    const call: number[] = [];
    const command: number[] = [];
    for (let round = 0; round < 5; round++) {
      let startedAt = performance.now();
      const { tasks } = await this.#peer.tasks.list({});
      call.push(performance.now() - startedAt);
      if (tasks.length !== this.#size) throw new Error(`${tasks.length} of ${this.#size} tasks were listed`);
      startedAt = performance.now();
      await run(ctr, ['-a', this.#peer.socket, '-n', 'bench', 'tasks', 'ls', '-q']);
      command.push(performance.now() - startedAt);
    }
    return { call: median(call), command: median(command) };
  }

  async disperse(): Promise<void> {
    await lanes(4, async () => {
      while (this.#size > 0) await killTask(this.#peer, `idle${--this.#size}`);
    });
  }
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}
