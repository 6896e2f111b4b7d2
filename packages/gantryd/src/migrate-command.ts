// `gantryd migrate --from-containerd --dry-run`: what there is to take over from a containerd that is stopped.
import { parseArgs } from 'node:util';
import { invalidArgument, unimplemented } from '@gantry/api';
import { reportText, survey } from '@gantry/migrate';
import { builtinPlugins } from './plugins.ts';

/**
 * `--root` and `--state` after the command's name are containerd's. Writes nothing.
 * @throws StatusError FailedPrecondition while that containerd runs, Unimplemented without `--dry-run`
 */
export function migrateCommand(args: readonly string[], print: (text: string) => void): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      'from-containerd': { type: 'boolean' },
      'dry-run': { type: 'boolean' },
      root: { type: 'string', default: '/var/lib/containerd' },
      state: { type: 'string', default: '/run/containerd' },
    },
    strict: true,
  });
  if (!values['from-containerd']) throw invalidArgument('migrate: from what? The one choice is --from-containerd');
  if (!values['dry-run'])
    throw unimplemented('migrate: taking over is not built yet; with --dry-run it reports what there is to take');
  const snapshotters = builtinPlugins.filter(({ type }) => type === 'io.containerd.snapshotter.v1').map(({ id }) => id);
  print(reportText(survey({ root: values.root, state: values.state, snapshotters })));
  return 0;
}
