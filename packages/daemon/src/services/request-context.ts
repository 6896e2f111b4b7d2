import { failedPrecondition, StatusError } from '@gantry/api';
import type { CallContext } from '@gantry/rpc';
import type { RequestContext } from '../core/request-context.ts';
import { validateIdentifier } from '../core/validation/identifier.ts';

/**
 * The core's context of a call: its namespace, checked, its lease and its signal.
 * @throws FailedPrecondition without a namespace, InvalidArgument for a bad one
 */
export function requestContext(call: CallContext): RequestContext {
  if (!call.namespace) throw failedPrecondition('namespace is required: failed precondition');
  try {
    validateIdentifier(call.namespace);
  } catch (error) {
    throw StatusError.wrap(error, 'namespace validation');
  }
  return { namespace: call.namespace, lease: call.lease || undefined, signal: call.signal };
}
