/**
 * Looks up a field of an object by path: `['labels', 'a.b']`. Answers the value and whether it is present, as containerd's
 * filters.Adaptor does.
 */
export type FieldLookup = (path: readonly string[]) => string | undefined;

/** A parsed set of containerd filters: true if any of them matches; always true if there are none. */
export interface Filter {
  matches(lookup: FieldLookup): boolean;
}
