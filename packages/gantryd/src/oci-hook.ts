// `gantryd oci-hook -- program args…`: an OCI hook that fills in what it is told of the container on standard input.
// In arguments and environment, `{{id}}`, `{{pid}}`, `{{bundle}}`, `{{rootfs}}`, `{{annotation "x"}}` and `{{env}}`-like words are replaced.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';

interface State {
  id?: string;
  pid?: number;
  bundle?: string;
  annotations?: Record<string, string>;
}

/** Fills the templates of one text. @throws Error for a word that is not known */
export function fillTemplate(text: string, state: State, rootfs: () => string): string {
  return text.replace(/\{\{\s*(.*?)\s*\}\}/g, (_, words: string) => {
    const [name = '', ...args] = words.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
    const argument = args[0]?.startsWith('"') ? (JSON.parse(args[0]) as string) : args[0];
    switch (name) {
      case 'id':
        return state.id ?? '';
      case 'pid':
        return String(state.pid ?? 0);
      case 'bundle':
        return state.bundle ?? '';
      case 'rootfs':
        return rootfs();
      case 'annotation':
        return state.annotations?.[argument ?? ''] ?? '';
      default:
        throw new Error(`oci-hook: function ${JSON.stringify(name)} is not defined`);
    }
  });
}

/** The container's root filesystem: what its spec says, in its bundle. */
function rootfsOf(state: State): string {
  const bundle = state.bundle ?? '';
  const spec = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')) as { root?: { path?: string } };
  return path.resolve(bundle, spec.root?.path ?? 'rootfs');
}

/** Runs the program with the state on its standard input, and answers its exit code. */
export function ociHook(args: readonly string[], input: string): number {
  const command = args[0] === '--' ? args.slice(1) : args;
  if (command.length === 0) throw new Error('oci-hook: a command is required');
  const state = JSON.parse(input) as State;
  const [file = '', ...rest] = command.map((text) => fillTemplate(text, state, () => rootfsOf(state)));
  const env = Object.fromEntries(
    Object.entries(process.env).map(([name, value]) => [name, fillTemplate(value ?? '', state, () => rootfsOf(state))]),
  );
  const result = spawnSync(file, rest, { env, input, stdio: ['pipe', 'inherit', 'inherit'] });
  // A command that does not read its input to the end breaks the pipe; only one that never ran is an error of ours.
  if (result.error && result.status === null) throw result.error;
  return result.status ?? 1;
}
