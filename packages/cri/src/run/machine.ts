import { existsSync, readFileSync } from 'node:fs';

/** What this machine's cgroups can do. */
export interface Machine {
  unified: boolean;
  /** Limits of memory and swap together can be set. */
  swap: boolean;
  hugepages: boolean;
}

export function lookAtMachine(disableHugetlb: boolean): Machine {
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  return {
    unified,
    swap: unified ? true : existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hugepages: !disableHugetlb && hasHugetlb(unified),
  };
}

function hasHugetlb(unified: boolean): boolean {
  if (!unified) return existsSync('/sys/fs/cgroup/hugetlb');
  return readFileSync('/sys/fs/cgroup/cgroup.controllers', 'latin1').split(/\s+/).includes('hugetlb');
}
