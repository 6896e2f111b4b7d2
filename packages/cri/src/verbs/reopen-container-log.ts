import type { ReopenContainerLogRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { runningContainer } from '../run/exec-process.ts';

/** Goes on in a new file at the log's path: the old one has been moved away. */
export async function reopenContainerLog(cri: Cri, { containerId }: ReopenContainerLogRequest): Promise<object> {
  await runningContainer(cri, containerId).io?.reopen();
  return {};
}
