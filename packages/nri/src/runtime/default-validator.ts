import { invalidArgument, permissionDenied } from '@gantry/api';
import {
  Field,
  type PodSandbox,
  SecurityProfile_ProfileType,
  type ValidateContainerAdjustmentRequest,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { parseYaml } from '@gantry/oci/cdi/yaml.ts';

/** What the built-in validator refuses; keys as in containerd's configuration. */
export interface DefaultValidatorSettings {
  enable: boolean;
  reject_oci_hook_adjustment: boolean;
  reject_runtime_default_seccomp_adjustment: boolean;
  reject_unconfined_seccomp_adjustment: boolean;
  reject_custom_seccomp_adjustment: boolean;
  reject_namespace_adjustment: boolean;
  reject_sysctl_adjustment: boolean;
  required_plugins: string[];
  tolerate_missing_plugins_annotation: string;
}

const requiredPluginsAnnotation = 'required-plugins.noderesource.dev';

/** @throws PermissionDenied for an adjustment that the configuration does not allow, naming the plugins that asked for it */
export async function validateByDefault(
  request: ValidateContainerAdjustmentRequest,
  settings: DefaultValidatorSettings,
): Promise<void> {
  const id = request.container?.id ?? '';
  const owners = request.owners?.owners[id];
  const hooks = owners?.simple[Field.OciHooks];
  if (settings.reject_oci_hook_adjustment && hooks !== undefined) {
    const plural = hooks.includes(',') ? 'plugins' : 'plugin';
    throw refused(`${plural} ${JSON.stringify(hooks)} attempted restricted OCI hook injection`);
  }
  const seccomp = owners?.simple[Field.SeccompPolicy];
  if (seccomp !== undefined) {
    const kind = refusedSeccomp(request, settings);
    if (kind) throw refused(`plugin ${seccomp} attempted restricted ${kind} seccomp policy adjustment`);
  }
  const namespaces = owners?.compound[Field.Namespace]?.owners ?? {};
  if (settings.reject_namespace_adjustment && Object.keys(namespaces).length > 0) {
    throw refused(`attempted restricted namespace adjustment by plugin(s) ${offenders(namespaces, 'namespace')}`);
  }
  await checkRequired(request, settings);
  const sysctls = owners?.compound[Field.Sysctl]?.owners ?? {};
  if (settings.reject_sysctl_adjustment && Object.keys(sysctls).length > 0) {
    throw refused(`attempted restricted sysctl adjustment by plugin(s) ${offenders(sysctls, 'sysctl')}`);
  }
}

const refused = (reason: string) => permissionDenied(`validation error: ${reason}`);

function offenders(owners: Record<string, string>, what: string): string {
  return Object.entries(owners)
    .map(([key, plugin]) => `${JSON.stringify(plugin)} (${what} ${JSON.stringify(key)})`)
    .join(', ');
}

function refusedSeccomp(
  { container }: ValidateContainerAdjustmentRequest,
  settings: DefaultValidatorSettings,
): string | undefined {
  switch (container?.linux?.seccompProfile?.profileType) {
    case SecurityProfile_ProfileType.RUNTIME_DEFAULT:
      return settings.reject_runtime_default_seccomp_adjustment ? 'runtime default' : undefined;
    case SecurityProfile_ProfileType.LOCALHOST:
      return settings.reject_custom_seccomp_adjustment ? 'custom' : undefined;
    default:
      return settings.reject_unconfined_seccomp_adjustment ? 'unconfined' : undefined;
  }
}

/** Those of the configuration and of the pod's annotation must all have taken part. */
async function checkRequired(
  { pod, container, plugins }: ValidateContainerAdjustmentRequest,
  settings: DefaultValidatorSettings,
): Promise<void> {
  const name = container?.name ?? '';
  const tolerates = settings.tolerate_missing_plugins_annotation;
  const tolerated = tolerates === '' ? undefined : effectiveAnnotation(pod, tolerates, name);
  if (tolerated !== undefined) {
    if (/^(1|t|true)$/i.test(tolerated)) return;
    if (!/^(0|f|false)$/i.test(tolerated)) throw invalidArgument(`invalid ${tolerates} annotation "${tolerated}"`);
  }
  const annotated = effectiveAnnotation(pod, requiredPluginsAnnotation, name);
  const required = [...settings.required_plugins, ...(annotated === undefined ? [] : await listOf(annotated))];
  const present = new Set(plugins.flatMap((plugin) => [plugin.name, `${plugin.index}-${plugin.name}`]));
  const missing = [...new Set(required.filter((plugin) => !present.has(plugin)))];
  if (missing.length === 0) return;
  const plural = missing.length > 1 ? 'plugins' : 'plugin';
  throw refused(`required ${plural} ${JSON.stringify(missing.join(','))} not present`);
}

/** For the container, else for the pod. */
function effectiveAnnotation(pod: PodSandbox | undefined, key: string, container: string): string | undefined {
  const annotations = pod?.annotations ?? {};
  return annotations[`${key}/container.${container}`] ?? annotations[`${key}/pod`] ?? annotations[key];
}

async function listOf(text: string): Promise<string[]> {
  let list: unknown;
  try {
    list = await parseYaml(text);
  } catch (reason) {
    throw invalidArgument(`invalid ${requiredPluginsAnnotation} annotation "${text}": ${(reason as Error).message}`);
  }
  if (Array.isArray(list) && list.every((entry) => typeof entry === 'string')) return list;
  throw invalidArgument(`invalid ${requiredPluginsAnnotation} annotation "${text}": no list of names`);
}
