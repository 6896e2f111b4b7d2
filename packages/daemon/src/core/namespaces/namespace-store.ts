import type { WriteTransaction } from '../metadata/metadata-store.ts';

/** Namespaces and their labels. A namespace that something was created in exists, labels or not. */
export interface NamespaceStore {
  labels(name: string): Promise<Record<string, string>>;
  list(): Promise<string[]>;
  create(name: string, labels: Record<string, string>): Promise<void>;
  /** Sets labels by field mask; an empty value removes a label. */
  update(name: string, labels: Record<string, string>, paths: string[]): Promise<Record<string, string>>;
  /** @throws FailedPrecondition with what is left in it. */
  delete(name: string): Promise<void>;
  /** Notes, inside another transaction, that the namespace is in use. */
  ensure(tx: WriteTransaction, name: string): void;
}
