// `gantryd migrate --from-containerd`: takes over what a stopped containerd has, tells what there is to take, or gives it back.
import path from 'node:path';
import { parseArgs } from 'node:util';
import { invalidArgument } from '@gantry/api';
import { createDaemon } from '@gantry/daemon';
import {
  carryConfig,
  containerdPlace,
  features,
  gantryPlace,
  giveBack,
  givenBackText,
  reportOf,
  reportText,
  takeOver,
} from '@gantry/migrate';
import { defaultConfigPath, type Flags } from './flags.ts';
import { builtinPlugins } from './plugins.ts';

/**
 * `--root`, `--state`, `--address` and `--config` after the command's name are containerd's; before it they are this daemon's.
 * @throws StatusError FailedPrecondition while that containerd, or this daemon, runs
 */
export async function migrateCommand(
  args: readonly string[],
  flags: Flags,
  print: (text: string) => void,
): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      'from-containerd': { type: 'boolean' },
      'dry-run': { type: 'boolean', default: false },
      back: { type: 'boolean', default: false },
      format: { type: 'string', default: 'text' },
      root: { type: 'string' },
      state: { type: 'string' },
      address: { type: 'string' },
      config: { type: 'string' },
    },
    strict: true,
  });
  if (!values['from-containerd']) throw invalidArgument('migrate: from what? The one choice is --from-containerd');
  if (values.back && values['dry-run']) throw invalidArgument('migrate: --back and --dry-run do not go together');
  if (!['text', 'json'].includes(values.format)) throw invalidArgument('migrate: --format is text or json');
  const json = values.format === 'json';
  const show = <T>(what: T, text: (what: T) => string) =>
    print(json ? `${JSON.stringify(what, undefined, 2)}\n` : text(what));

  const configFile = flags.config ?? defaultConfigPath;
  const daemon = await createDaemon({
    plugins: builtinPlugins,
    configPath: configFile,
    configOptional: true,
    root: flags.root && path.resolve(flags.root),
    state: flags.state && path.resolve(flags.state),
    address: flags.address && path.resolve(flags.address),
  });
  const to = gantryPlace(daemon, builtinPlugins);
  if (values.back) {
    show(await giveBack(to), givenBackText);
    return 0;
  }
  const from = await containerdPlace(values, builtinPlugins);
  const takeover = await takeOver({
    from,
    to,
    dryRun: values['dry-run'],
    carryConfig: () => carryConfig(from.configFile, configFile),
  });
  const here = new Set(builtinPlugins.map(({ type, id }) => `${type}.${id}`));
  const used = await features(from, takeover.survey, here);
  show(reportOf(takeover, used), reportText);
  return 0;
}
