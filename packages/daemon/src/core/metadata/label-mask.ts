import { invalidArgument } from '@gantry/api';

/**
 * The labels after an update with a field mask: `labels` or no path replaces them all, `labels.key` sets that one, and an
 * empty or missing value removes it. @throws InvalidArgument for any other path.
 */
export function applyLabelMask(
  present: Readonly<Record<string, string>>,
  given: Readonly<Record<string, string>>,
  paths: readonly string[],
  what: string,
): Record<string, string> {
  if (paths.length === 0) return withoutEmpty(given);
  let labels = { ...present };
  for (const path of paths) {
    if (path === 'labels') labels = { ...given };
    else if (path.startsWith('labels.')) {
      const name = path.slice('labels.'.length);
      const value = given[name];
      if (value) labels[name] = value;
      else delete labels[name];
    } else throw invalidArgument(`cannot update "${path}" field on ${what}: invalid argument`);
  }
  return withoutEmpty(labels);
}

function withoutEmpty(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
}
