import { existsSync, readFileSync } from 'node:fs';
import { failedPrecondition } from '@gantry/api';
import type { LinuxContainerResources } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RuntimeConfig } from '../config/runtime-config.ts';

/** What this machine's cgroups can do. */
export interface Machine {
  unified: boolean;
  /** Limits of memory and swap together can be set. */
  swap: boolean;
  hugepages: boolean;
  /** Limits of huge pages are asked for in vain, and that is an error. */
  refusesHugepages: boolean;
}

export function lookAtMachine({
  disable_hugetlb_controller: disabled,
  tolerate_missing_hugetlb_controller: tolerated,
}: Pick<RuntimeConfig, 'disable_hugetlb_controller' | 'tolerate_missing_hugetlb_controller'>): Machine {
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  return {
    unified,
    swap: unified ? true : existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hugepages: !disabled && hasHugetlb(unified),
    refusesHugepages: !disabled && !tolerated && !hasHugetlb(unified),
  };
}

function hasHugetlb(unified: boolean): boolean {
  if (!unified) return existsSync('/sys/fs/cgroup/hugetlb');
  return readFileSync('/sys/fs/cgroup/cgroup.controllers', 'latin1').split(/\s+/).includes('hugetlb');
}

/** @throws FailedPrecondition for limits of huge pages on a machine that is to refuse them */
export function requireHugepages(machine: Pick<Machine, 'refusesHugepages'>, asked: LinuxContainerResources): void {
  if (!machine.refusesHugepages || asked.hugepageLimits.length === 0) return;
  throw failedPrecondition(
    'huge pages limits are specified but hugetlb cgroup controller is missing. ' +
      'Please set tolerate_missing_hugetlb_controller to `true` to ignore this error',
  );
}
