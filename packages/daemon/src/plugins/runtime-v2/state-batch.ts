import { Code, deadlineExceeded, hasCode } from '@gantry/api';
import type { StateResponse } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import type { ShimConnection } from './shim-connection.ts';

interface Question {
  id: string;
  answer(state: StateResponse | undefined): void;
  fail(error: unknown): void;
}

/** So many states fit one message of ttrpc with room to spare: four megabytes. */
const atOnce = 4000;

/**
 * Puts questions for the states of tasks in one shim of ours, asked in the same turn of the event loop, into one message. A list of
 * a thousand tasks is one call then instead of a thousand.
 */
export class StateBatch {
  readonly #connection: () => Promise<ShimConnection>;
  readonly #namespace: string;
  #questions: Question[] = [];
  /** Its shim is of an older version. */
  #unknown = false;

  constructor(namespace: string, connection: () => Promise<ShimConnection>) {
    this.#namespace = namespace;
    this.#connection = connection;
  }

  /**
   * @returns undefined if the task has to be asked for alone: nobody else asked, or it is not there, or something is wrong
   * @throws StatusError DeadlineExceeded
   */
  ask(id: string, timeoutMs: number | undefined): Promise<StateResponse | undefined> {
    return new Promise((answer, fail) => {
      if (this.#questions.push({ id, answer, fail }) === 1) queueMicrotask(() => void this.#flush(timeoutMs));
    });
  }

  async #flush(timeoutMs: number | undefined): Promise<void> {
    const questions = this.#questions;
    this.#questions = [];
    const states = new Map<string, StateResponse>();
    try {
      if (questions.length > 1 && !this.#unknown) {
        for (let from = 0; from < questions.length; from += atOnce) {
          const ids = questions.slice(from, from + atOnce).map(({ id }) => id);
          const connection = await inTime(this.#connection(), timeoutMs);
          const response = await connection.shim.states(
            { ids },
            { namespace: this.#namespace, ...(timeoutMs === undefined ? {} : { timeoutMs }) },
          );
          for (const state of response.states) states.set(state.id, state);
        }
      }
    } catch (error) {
      this.#unknown = hasCode(error, Code.Unimplemented);
      // Alone they would take the same time once more.
      if (hasCode(error, Code.DeadlineExceeded)) for (const { fail } of questions) fail(error);
    } finally {
      for (const { id, answer } of questions) answer(states.get(id));
    }
  }
}

/** A shim that is being started is waited for no longer than the call may take. */
async function inTime<T>(work: Promise<T>, timeoutMs: number | undefined): Promise<T> {
  if (timeoutMs === undefined) return work;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(deadlineExceeded('the shim is being started')), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
