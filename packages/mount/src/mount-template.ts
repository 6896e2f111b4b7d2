/** The templates of `format/` mounts: `{{ mount 0 }}`, `{{ source 0 }}`, `{{ target 0 }}` and `{{ overlay 0 2 }}`, in Go's notation. */
import { invalidArgument } from '@gantry/api';
import type { Mount } from './mount.ts';
import type { ActiveMount } from './mount-handler.ts';

/** Fills in what earlier mounts of the activation gave. @throws InvalidArgument for a template that is none, or an index out of range */
export async function formatMount(mount: Mount, before: readonly ActiveMount[]): Promise<Mount> {
  return {
    ...mount,
    source: formatTemplate(mount.source, before),
    ...(mount.target && { target: formatTemplate(mount.target, before) }),
    options: mount.options.map((option) => formatTemplate(option, before)),
  };
}

export function formatTemplate(text: string, before: readonly ActiveMount[]): string {
  let out = '';
  for (let at = 0; ; ) {
    const open = text.indexOf('{{', at);
    if (open < 0) return out + text.slice(at);
    const close = text.indexOf('}}', open);
    if (close < 0) throw invalidArgument(`template: unclosed action in ${JSON.stringify(text)}`);
    let action = text.slice(open + 2, close);
    let literal = text.slice(at, open);
    at = close + 2;
    // `{{- ` and ` -}}` trim the text around them.
    if (/^-\s/.test(action)) {
      literal = literal.trimEnd();
      action = action.slice(1);
    }
    if (/\s-$/.test(action)) {
      action = action.slice(0, -1);
      while (at < text.length && /\s/.test(text[at]!)) at++;
    }
    out += literal + evaluate(action.trim(), before, text);
  }
}

function evaluate(action: string, before: readonly ActiveMount[], text: string): string {
  const [name = '', ...words] = action.split(/\s+/);
  const numbers = words.map((word) => (/^[+-]?\d+$/.test(word) ? Number(word) : Number.NaN));
  const arity = { source: 1, target: 1, mount: 1, overlay: 2 }[name];
  if (arity === undefined) throw invalidArgument(`template: function "${name}" not defined in ${JSON.stringify(text)}`);
  if (numbers.length !== arity || numbers.some(Number.isNaN)) {
    throw invalidArgument(`template: ${name} wants ${arity} number${arity === 1 ? '' : 's'}: ${JSON.stringify(text)}`);
  }
  const [first = 0, second = 0] = numbers;
  if (name === 'overlay') return overlayLayers(first, second, before);
  const active = before[first];
  if (!active) throw invalidArgument(`index out of bounds: ${first}, has ${before.length} active mounts`);
  if (name === 'source') return active.mount.source;
  return name === 'target' ? (active.mount.target ?? '') : active.mountPoint;
}

/** Mount points `start` to `end` (both included; backwards if `start` is the greater) as overlayfs's lowerdir takes them. */
function overlayLayers(start: number, end: number, before: readonly ActiveMount[]): string {
  const [low, high] = start > end ? [end, start] : [start, end];
  if (low < 0 || high >= before.length) {
    throw invalidArgument(`invalid range: ${start}-${end}, has ${before.length} active mounts`);
  }
  const points = before.slice(low, high + 1).map(({ mountPoint }) => mountPoint);
  return (start > end ? points.reverse() : points).join(':');
}
