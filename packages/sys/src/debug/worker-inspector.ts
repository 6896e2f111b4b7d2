import { Session } from 'node:inspector/promises';

/** A worker thread as the inspector knows it. */
export interface InspectedWorker {
  /** Node's number of the thread (`threadId`), as `thread=` of a request names it. */
  readonly id: number;
  readonly title: string;
  /** Calls a method of the inspector's protocol there. @throws Error if the worker refuses, or does not answer in time */
  call(method: string, params?: object, timeoutMs?: number): Promise<unknown>;
  /** Has a listener told of the events of one name. */
  on(method: string, listener: (params: unknown) => void): void;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

const answerMs = 1000;

/**
 * Connects to all workers of this thread through the inspector inside the process: no port is opened. When `work` ends they are let go, and
 * go on if they were paused.
 */
export async function withWorkers<Result>(
  work: (workers: readonly InspectedWorker[]) => Promise<Result>,
): Promise<Result> {
  const session = new Session();
  session.connect();
  const workers = new Map<string, Connection>();
  session.on('NodeWorker.attachedToWorker', ({ params: { sessionId, workerInfo } }) => {
    workers.set(sessionId, new Connection(session, sessionId, workerInfo));
  });
  session.on('NodeWorker.receivedMessageFromWorker', ({ params: { sessionId, message } }) => {
    workers.get(sessionId)?.receive(message);
  });
  session.on('NodeWorker.detachedFromWorker', ({ params: { sessionId } }) => workers.get(sessionId)?.ended());
  try {
    await session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
    return await work([...workers.values()].sort((a, b) => a.id - b.id));
  } finally {
    for (const worker of workers.values()) worker.ended();
    await session.post('NodeWorker.disable').catch(() => undefined);
    session.disconnect();
  }
}

class Connection implements InspectedWorker {
  readonly id: number;
  readonly title: string;
  readonly #session: Session;
  readonly #sessionId: string;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, (params: unknown) => void>();
  #last = 0;

  constructor(session: Session, sessionId: string, info: { workerId: string; title: string }) {
    this.#session = session;
    this.#sessionId = sessionId;
    // The inspector counts for itself; Node's own number is in the title only.
    const [, id = info.workerId, title = info.title] = /^\[worker (\d+)\] ?(.*)$/.exec(info.title) ?? [];
    this.id = Number(id);
    this.title = title || 'worker';
  }

  call(method: string, params: object = {}, timeoutMs = answerMs): Promise<unknown> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new Error(`no answer in ${timeoutMs} ms`));
      }, timeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
      const message = JSON.stringify({ id, method, params });
      this.#session
        .post('NodeWorker.sendMessageToWorker', { sessionId: this.#sessionId, message })
        .catch((error: Error) => this.#take(id)?.reject(error));
    });
  }

  on(method: string, listener: (params: unknown) => void): void {
    this.#listeners.set(method, listener);
  }

  receive(text: string): void {
    const { id, result, error, method, params } = JSON.parse(text) as {
      id?: number;
      result?: unknown;
      error?: { message: string };
      method?: string;
      params?: unknown;
    };
    if (id === undefined) {
      this.#listeners.get(method ?? '')?.(params);
      return;
    }
    const pending = this.#take(id);
    if (error) pending?.reject(new Error(error.message));
    else pending?.resolve(result);
  }

  ended(): void {
    for (const id of [...this.#pending.keys()]) this.#take(id)?.reject(new Error('the thread has ended'));
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    clearTimeout(pending?.timer);
    return pending;
  }
}
