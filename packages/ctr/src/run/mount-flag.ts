import type { SpecMount } from '@gantry/oci';

/** Fields of a line of comma-separated values, of which one may be in double quotes to hold commas. */
function fields(text: string): string[] {
  const found: string[] = [];
  for (const [, quoted, bare] of text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g))
    found.push(quoted === undefined ? (bare ?? '') : quoted.replaceAll('""', '"'));
  return found;
}

/** A `--mount`: `type=bind,src=/tmp,dst=/host,options=rbind:ro`. @throws Error for what is not known */
export function parseMount(text: string): SpecMount {
  const mount: SpecMount = { destination: '' };
  for (const field of fields(text)) {
    const at = field.indexOf('=');
    if (at < 0) throw new Error(`invalid mount specification: expected key=val`);
    const [key, value] = [field.slice(0, at), field.slice(at + 1)];
    switch (key) {
      case 'type':
        mount.type = value;
        break;
      case 'source':
      case 'src':
        mount.source = value;
        break;
      case 'destination':
      case 'dst':
        mount.destination = value;
        break;
      case 'options':
        mount.options = value.split(':');
        break;
      default:
        throw new Error(`mount option "${key}" not supported`);
    }
  }
  return mount;
}
