import type { TransferOptions, TransferProgress } from './transferrer.ts';

/** One thing that a transfer moves, with its latest report. */
export interface TransferPart {
  name: string;
  /** As `downloading`, `extracting`, `complete`. */
  event: string;
  /** Bytes. */
  progress: number;
  total: number;
}

/** A transfer under way. */
export interface ActiveTransfer {
  readonly namespace: string;
  /** Both ends, for people: as `OCI Registry (example.com/a:1)`. */
  readonly from: string;
  readonly to: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly parts: ReadonlyMap<string, TransferPart>;
}

/** What is being transferred right now, for those who look; costs a map entry for each report. */
export class ActiveTransfers implements Iterable<ActiveTransfer> {
  readonly #active = new Set<ActiveTransfer>();

  /** Runs a transfer and listens to what it reports. */
  async watch(
    about: Pick<ActiveTransfer, 'namespace' | 'from' | 'to'>,
    options: TransferOptions,
    transfer: (options: TransferOptions) => Promise<void>,
  ): Promise<void> {
    const parts = new Map<string, TransferPart>();
    const active: ActiveTransfer = { ...about, startedAt: Date.now(), parts };
    this.#active.add(active);
    try {
      await transfer({
        ...options,
        progress: (report) => {
          note(parts, report);
          options.progress?.(report);
        },
      });
    } finally {
      this.#active.delete(active);
    }
  }

  [Symbol.iterator](): Iterator<ActiveTransfer> {
    return this.#active[Symbol.iterator]();
  }
}

function note(
  parts: Map<string, TransferPart>,
  { name, event, progress = 0, total = 0, descriptor }: TransferProgress,
) {
  if (name === undefined || !descriptor) return;
  parts.set(name, { name, event, progress, total });
}
