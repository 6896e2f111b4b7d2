/**
 * What every core call is told about its caller. It is the first argument everywhere, never ambient state, so that
 * a reader sees where a namespace comes from.
 */
export interface RequestContext {
  /** The containerd namespace, already validated. */
  readonly namespace: string;
  /** A lease id: whatever the call creates is added to that lease in the same transaction. */
  readonly lease?: string | undefined;
  /** Aborted when the caller gives up. */
  readonly signal?: AbortSignal | undefined;
  /**
   * One step of several: the caller tells nobody of it before it has made a durable change after it, which brings this one to disk
   * too. Steps that only make things (ingests, content, snapshots, leases), or only remove records, then do not wait for the disk each.
   */
  readonly step?: boolean | undefined;
}

/** A context for work the daemon does on its own behalf. */
export function contextOf(namespace: string, lease?: string): RequestContext {
  return { namespace, lease };
}
