import type { MessageInitShape } from '@bufbuild/protobuf';
import type { RuntimeConditionSchema, StatusRequest, StatusResponseSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { stringifyJson } from '@gantry/oci';
import type { Cri } from '../cri.ts';
import { verboseConfig } from './verbose-config.ts';

/** Whether pods can be run, and what handlers can do. */
export async function status(
  cri: Cri,
  { verbose }: StatusRequest,
): Promise<MessageInitShape<typeof StatusResponseSchema>> {
  const network = await cri.network.status('');
  const runtimeHandlers = await Promise.all(
    ['', ...cri.handlers.names()].map(async (name) => ({
      name,
      features: await cri.features.of(cri.handlers.get(name)),
    })),
  );
  const conditions: MessageInitShape<typeof RuntimeConditionSchema>[] = [
    { type: 'RuntimeReady', status: true },
    { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
    deprecations(cri),
  ];
  return {
    status: { conditions },
    runtimeHandlers,
    features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: true },
    ...(verbose && { info: verboseInfo(cri) }),
  };
}

function deprecations(cri: Cri): MessageInitShape<typeof RuntimeConditionSchema> {
  const ignored = cri.config.runtime.ignore_deprecation_warnings;
  const found = cri.warnings.warnings().filter(({ id }) => !ignored.includes(id));
  const type = 'ContainerdHasNoDeprecationWarnings';
  if (found.length === 0) return { type, status: true };
  const message = JSON.stringify(Object.fromEntries(found.map(({ id, message: text }) => [id, text])));
  return { type, status: false, reason: 'ContainerdHasDeprecationWarnings', message };
}

function verboseInfo(cri: Cri): Record<string, string> {
  return {
    config: stringifyJson(verboseConfig(cri)),
    golang: `node ${process.version}`,
    ...cri.network.info(),
  };
}
