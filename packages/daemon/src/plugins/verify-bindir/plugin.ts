import path from 'node:path';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { ProgramRunner } from '../../core/programs/program-runner.ts';
import { BindirVerifier } from './bindir-verifier.ts';

/** `io.containerd.image-verifier.v1.bindir`. */
export const bindirVerifierPlugin = definePlugin({
  type: PluginTypes.ImageVerifier,
  id: 'bindir',
  config: schema({
    bin_dir: field.string('/opt/containerd/image-verifier/bin'),
    max_verifiers: field.integer(10),
    per_verifier_timeout: field.duration('10s'),
  }),
  init({ config, state, log }) {
    return new BindirVerifier({
      binDir: config.bin_dir,
      maxVerifiers: config.max_verifiers,
      timeoutMs: config.per_verifier_timeout,
      programs: ProgramRunner.open(path.join(state, 'running')),
      log,
    });
  },
});
