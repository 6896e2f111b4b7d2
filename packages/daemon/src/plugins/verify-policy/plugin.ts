import { type Field, field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { readRules } from './policy.ts';
import { PolicyVerifier } from './policy-verifier.ts';

const rules: Field<unknown> = {
  kind: 'any',
  default: undefined,
  check(value) {
    try {
      readRules(value);
      return undefined;
    } catch (error) {
      return `good rules (${(error as Error).message})`;
    }
  },
};

/** `io.containerd.image-verifier.v1.policy`: rules by repository, and signatures made with cosign's keys. */
export const policyVerifierPlugin = definePlugin({
  type: PluginTypes.ImageVerifier,
  id: 'policy',
  config: schema({
    /** `allow` or `deny`, for images that no rule is about. */
    default_action: field.string('allow', (value) =>
      value === 'allow' || value === 'deny' ? undefined : 'allow or deny',
    ),
    timeout: field.duration('30s'),
    rules,
  }),
  init({ config }) {
    const list = readRules(config.rules);
    const defaultAction = config.default_action === 'deny' ? 'deny' : 'allow';
    if (list.length === 0 && defaultAction === 'allow') throw new PluginSkip('no rules are configured');
    return new PolicyVerifier({ rules: list, defaultAction, timeoutMs: config.timeout });
  },
});
