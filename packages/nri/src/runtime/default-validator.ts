import { permissionDenied } from '@gantry/api';
import {
  Field,
  type PodSandbox,
  SecurityProfile_ProfileType,
  type ValidateContainerAdjustmentRequest,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';

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
export function validateByDefault(
  request: ValidateContainerAdjustmentRequest,
  settings: DefaultValidatorSettings,
): void {
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
  checkRequired(request, settings);
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
function checkRequired(request: ValidateContainerAdjustmentRequest, settings: DefaultValidatorSettings): void {
  const { pod, container, plugins } = request;
  const name = container?.name ?? '';
  const annotated = pod && effectiveAnnotation(pod, requiredPluginsAnnotation, name);
  const required = [...settings.required_plugins, ...(annotated === undefined ? [] : listOf(annotated))];
  if (required.length === 0) return;
  const tolerates = settings.tolerate_missing_plugins_annotation;
  if (tolerates !== '' && pod && effectiveAnnotation(pod, tolerates, name) === 'true') return;
  const present = new Set(plugins.flatMap((plugin) => [plugin.name, `${plugin.index}-${plugin.name}`]));
  const missing = [...new Set(required.filter((plugin) => !present.has(plugin)))];
  if (missing.length === 0) return;
  const plural = missing.length > 1 ? 'plugins' : 'plugin';
  throw refused(`required ${plural} ${missing.map((plugin) => JSON.stringify(plugin)).join(', ')} not present`);
}

/** For the container, else for the pod. */
function effectiveAnnotation(pod: PodSandbox, key: string, container: string): string | undefined {
  return pod.annotations[`${key}/container.${container}`] ?? pod.annotations[`${key}/pod`] ?? pod.annotations[key];
}

/** The entries of a list in YAML, by lines or in brackets. */
function listOf(text: string): string[] {
  return text
    .replaceAll(/[[\]]/g, ' ')
    .split(/[\n,]/)
    .map((entry) =>
      entry
        .trim()
        .replace(/^-\s+/, '')
        .replaceAll(/^["']|["']$/g, '')
        .trim(),
    )
    .filter((entry) => entry !== '');
}
