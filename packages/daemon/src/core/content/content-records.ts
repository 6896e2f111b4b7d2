import type { Time } from '@gantry/api';

/** A blob as a namespace has it. The bytes are the backend's. */
export interface BlobRecord {
  size: number;
  createdAt: Time;
  updatedAt: Time;
  labels: Record<string, string>;
}

/** An ingest of a namespace: which ingest of the backend it is. */
export interface IngestRecord {
  /** The backend's ref, unique across namespaces. */
  backendRef: string;
  /** Expected digest, '' if not told. */
  expected: string;
  total: number;
  startedAt: Time;
  /** Not held by a lease: may be collected after this. */
  expiresAt?: Time;
  /** The bytes are in the backend already, under `expected`: nothing has to be written. */
  shared: boolean;
}
