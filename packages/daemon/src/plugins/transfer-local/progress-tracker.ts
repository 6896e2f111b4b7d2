import { type Descriptor, refKey } from '@gantry/oci';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';

/** Turns what happens to each piece of content into containerd's progress events; byte counts at most every 300 ms. */

type State = 'waiting' | 'active' | 'complete' | 'extracting' | 'extracted';

interface Job {
  descriptor: Descriptor;
  name: string;
  parents: string[];
  state: State;
  progress: number;
  reported: number;
}

const interval = 300;

export class ProgressTracker implements Disposable {
  readonly #root: string;
  readonly #activeEvent: string;
  readonly #report: NonNullable<TransferOptions['progress']>;
  readonly #jobs = new Map<string, Job>();
  readonly #parents = new Map<string, Set<string>>();
  readonly #timer: NodeJS.Timeout;

  /** `activeEvent`: `downloading` or `uploading`. */
  constructor(root: string, activeEvent: string, options: TransferOptions) {
    this.#root = root;
    this.#activeEvent = activeEvent;
    this.#report = options.progress ?? (() => undefined);
    this.#timer = setInterval(() => this.#tick(), interval);
    this.#timer.unref();
  }

  add(descriptor: Descriptor): void {
    if (this.#jobs.has(descriptor.digest)) return;
    const known = this.#parents.get(descriptor.digest);
    const job: Job = {
      descriptor,
      name: refKey(descriptor),
      parents: known ? [...known] : this.#root === '' ? [] : [this.#root],
      state: 'waiting',
      progress: 0,
      reported: 0,
    };
    this.#jobs.set(descriptor.digest, job);
    this.#send('waiting', job, 0);
  }

  addChildren(parent: Descriptor, children: readonly Descriptor[]): void {
    for (const { digest } of children) {
      const known = this.#parents.get(digest) ?? new Set();
      this.#parents.set(digest, known.add(refKey(parent)));
    }
  }

  /** Bytes moved so far. */
  update(descriptor: Descriptor, progress: number): void {
    const job = this.#jobs.get(descriptor.digest);
    if (!job || (job.state !== 'waiting' && job.state !== 'active')) return;
    job.state = 'active';
    job.progress = progress;
  }

  exists(descriptor: Descriptor): void {
    this.#finish(descriptor, 'complete', 'already exists');
  }

  /** Had from another repository of the same registry, without a byte on the way. */
  mounted(descriptor: Descriptor): void {
    this.#finish(descriptor, 'complete', 'mounted');
  }

  complete(descriptor: Descriptor): void {
    this.#finish(descriptor, 'complete', 'complete');
  }

  /** `read`: bytes of the blob that have been unpacked. */
  extracting(descriptor: Descriptor, read: number): void {
    this.add(descriptor);
    const job = this.#jobs.get(descriptor.digest);
    if (!job || job.state === 'extracted') return;
    job.progress = read;
    if (job.state === 'extracting') return;
    job.state = 'extracting';
    job.reported = read;
    this.#send('extracting', job, read);
  }

  extracted(descriptor: Descriptor): void {
    this.#finish(descriptor, 'extracted', 'extracted');
  }

  #finish(descriptor: Descriptor, state: State, event: string): void {
    const job = this.#jobs.get(descriptor.digest);
    // Unpacking may begin before the last byte is stored: its events must not be followed by a plain "complete".
    if (!job || job.state === state || (state === 'complete' && job.state.startsWith('extract'))) return;
    job.state = state;
    this.#send(event, job, descriptor.size);
  }

  #tick(): void {
    for (const job of this.#jobs.values()) {
      if ((job.state !== 'active' && job.state !== 'extracting') || job.progress <= job.reported) continue;
      job.reported = job.progress;
      this.#send(job.state === 'active' ? this.#activeEvent : 'extracting', job, job.progress);
    }
  }

  #send(event: string, job: Job, progress: number): void {
    const { name, parents, descriptor } = job;
    this.#report({ event, name, parents, progress, total: descriptor.size, descriptor });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
