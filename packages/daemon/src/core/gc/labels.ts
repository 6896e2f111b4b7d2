import { parseTime, type Time, toMillis } from '@gantry/api';
import { parseDuration } from '../plugin/duration.ts';

/** containerd's labels that steer the collector (its docs/garbage-collection.md), as references between nodes. */

/** A resource of one namespace: `content <digest>`, `snapshot <snapshotter>/<key>`, `image <name>`, `container <id>`, `ingest <ref>`, `sandbox <id>`, `mount <name>`. */
export type Node = `${'content' | 'snapshot' | 'image' | 'container' | 'ingest' | 'sandbox' | 'mount'} ${string}`;

export const node = {
  content: (digest: string): Node => `content ${digest}`,
  snapshot: (snapshotter: string, key: string): Node => `snapshot ${snapshotter}/${key}`,
  image: (name: string): Node => `image ${name}`,
  container: (id: string): Node => `container ${id}`,
  ingest: (ref: string): Node => `ingest ${ref}`,
  sandbox: (id: string): Node => `sandbox ${id}`,
  mount: (name: string): Node => `mount ${name}`,
} as const;

type Labels = Readonly<Record<string, string>>;

const prefix = 'containerd.io/gc.';
const rootLabel = `${prefix}root`;
const expireLabel = `${prefix}expire`;
const flatLabel = `${prefix}flat`;
const usedAtLabel = `${prefix}cond.value-usedat`;

export function isRoot(labels: Labels): boolean {
  return (labels[rootLabel] ?? '') !== '';
}

export function isFlat(labels: Labels): boolean {
  return flatLabel in labels;
}

/** Whether `gc.expire` is past. A value that is no time never expires, as in containerd. */
export function isExpired(labels: Labels, at: Time): boolean {
  const time = parseTime(labels[expireLabel] ?? '');
  return time !== undefined && toMillis(time) < toMillis(at);
}

/** Whether `gc.expire` names a time to come: content and snapshots are kept until then. */
export function isKeptForNow(labels: Labels, at: Time): boolean {
  const time = parseTime(labels[expireLabel] ?? '');
  return time !== undefined && toMillis(time) >= toMillis(at);
}

/** What an object refers to by `gc.ref.*`: it keeps those alive. */
export function* references(labels: Labels): Iterable<Node> {
  for (const [name, value] of Object.entries(labels)) {
    if (name.startsWith(`${prefix}ref.`)) {
      const target = targetOf(name.slice(`${prefix}ref.`.length), value);
      if (target) yield target;
    }
  }
}

/** What keeps an object alive by `gc.bref.*`: the reference is drawn from those to it. */
export function* backReferences(labels: Labels): Iterable<Node> {
  for (const [name, value] of Object.entries(labels)) {
    if (name.startsWith(`${prefix}bref.`)) {
      const target = targetOf(name.slice(`${prefix}bref.`.length), value);
      if (target) yield target;
    }
  }
}

/** The node that a label's end names: `content`, `content.x`, `content/x`, `image.x`, `container.x`, `mount.x`, `snapshot.<snapshotter>`, `snapshot.<snapshotter>/x`. */
function targetOf(rest: string, value: string): Node | undefined {
  if (value === '') return undefined;
  const match = /^(content|image|container|mount)(?:[./].*)?$/.exec(rest);
  if (match) return `${match[1] as 'content' | 'image' | 'container' | 'mount'} ${value}`;
  if (!rest.startsWith('snapshot.')) return undefined;
  const snapshotter = rest.slice('snapshot.'.length).split('/')[0]!;
  return snapshotter === '' ? undefined : node.snapshot(snapshotter, value);
}

/** A reference to a snapshot that counts only while a condition on the snapshot holds. */
export interface ConditionalReference {
  snapshot: Node;
  /** `at` is the time of the collection. */
  holds(snapshotLabels: Labels, at: Time): boolean;
}

/**
 * `gc.cond.snapshot.<snapshotter>` labels of content and images: `usedat<24h,usedat<…|<key>` keeps the snapshot while it was
 * last used, by its own label `gc.cond.value-usedat`, less than that long ago (`>`: more). Any condition is enough.
 */
export function* conditionalReferences(labels: Labels): Iterable<ConditionalReference> {
  const start = `${prefix}cond.snapshot`;
  for (const [name, value] of Object.entries(labels)) {
    if (!name.startsWith(start)) continue;
    const bar = value.indexOf('|');
    const snapshotter = name
      .slice(start.length)
      .replace(/^[./]+/, '')
      .split('/')[0]!;
    if (bar < 0 || snapshotter === '') continue;
    const conditions = value.slice(0, bar).split(',');
    yield {
      snapshot: node.snapshot(snapshotter, value.slice(bar + 1)),
      holds: (snapshotLabels, at) => conditions.some((condition) => conditionHolds(condition, snapshotLabels, at)),
    };
  }
}

function conditionHolds(condition: string, labels: Labels, at: Time): boolean {
  const match = /^usedat([<>])(.+)$/.exec(condition);
  const usedAt = parseTime(labels[usedAtLabel] ?? '');
  const limitMs = match ? parseDuration(match[2]!) : undefined;
  if (!match || !usedAt || limitMs === undefined) return false;
  const sinceMs = toMillis(at) - toMillis(usedAt);
  return match[1] === '<' ? sinceMs < limitMs : sinceMs > limitMs;
}
