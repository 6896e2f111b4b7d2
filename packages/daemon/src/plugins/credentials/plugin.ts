import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import type { CredentialProvider } from '../../core/credentials/credential-provider.ts';
import { type NamedProvider, ProviderChain } from '../../core/credentials/provider-chain.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { ProgramRunner } from '../../core/programs/program-runner.ts';
import { DockerConfigProvider } from './docker-config-provider.ts';
import { HelperProvider } from './helper-provider.ts';
import { KubeletProvider } from './kubelet-provider.ts';
import { ModuleProvider } from './module-provider.ts';

const kinds = ['docker-config', 'docker-helper', 'kubelet', 'module'] as const;

const provider = {
  type: field.string('', (value) =>
    (kinds as readonly string[]).includes(value) ? undefined : `one of ${kinds.join(', ')}`,
  ),
  path: field.path(),
  match_images: field.strings(),
  timeout: field.duration('1m'),
  args: field.strings(),
  env: field.map(),
  default_cache_duration: field.duration('10m'),
  options: field.any(),
};

/** `io.gantry.credentials.v1.providers`: who is asked for logins when a registry wants one and the client gave none. */
export const credentialsPlugin = definePlugin({
  type: PluginTypes.Credentials,
  id: 'providers',
  config: schema({
    /** The names asked for hosts whose hosts.toml names none, in this order; `*`: all, as they stand in the file. */
    usual: field.strings(['*']),
    providers: field.tables(provider),
  }),
  init({ config, state, log, onClose }) {
    const names = Object.keys(config.providers);
    if (names.length === 0) throw new PluginSkip('no providers are configured');
    const usual = config.usual.flatMap((name) => (name === '*' ? names : [name]));
    const unknown = usual.find((name) => !names.includes(name));
    if (unknown !== undefined) throw invalidArgument(`usual: there is no provider "${unknown}"`);
    const programs = ProgramRunner.open(path.join(state, 'running'));
    const providers: NamedProvider[] = Object.entries(config.providers).map(([name, settings]) => {
      if (settings.path === '') throw invalidArgument(`providers.${name}: path is missing`);
      return { name, provider: make(name, settings, programs), matchImages: settings.match_images };
    });
    const chain = new ProviderChain(providers, usual, log);
    onClose(() => chain.close());
    return chain;
  },
});

interface Settings {
  type: string;
  path: string;
  timeout: number;
  args: string[];
  env: Record<string, string>;
  default_cache_duration: number;
  options: unknown;
}

function make(name: string, settings: Settings, programs: ProgramRunner): CredentialProvider {
  const { type, path: file, timeout: timeoutMs, args, env, options } = settings;
  switch (type) {
    case 'docker-config':
      return new DockerConfigProvider({ file, env, timeoutMs, programs });
    case 'docker-helper':
      return new HelperProvider({ file, args, env, timeoutMs, programs });
    case 'kubelet':
      return new KubeletProvider({
        file,
        args,
        env,
        timeoutMs,
        programs,
        defaultCacheMs: settings.default_cache_duration,
      });
    default:
      return new ModuleProvider({ name, file, timeoutMs, options });
  }
}
