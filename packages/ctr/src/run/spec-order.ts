import type { RuntimeSpec } from '@gantry/oci';

const orders = {
  spec: 'ociVersion process root hostname domainname mounts hooks annotations linux',
  process:
    'terminal consoleSize user args env cwd capabilities rlimits noNewPrivileges apparmorProfile oomScoreAdj selinuxLabel',
  linux:
    'uidMappings gidMappings sysctl resources cgroupsPath namespaces devices seccomp rootfsPropagation maskedPaths readonlyPaths intelRdt',
  resources: 'devices memory cpu pids blockIO hugepageLimits unified',
  cpu: 'shares quota period cpus mems idle',
};

function ordered<T extends object>(value: T, order: string): T {
  const names = order.split(' ');
  const rank = (name: string): number => (names.includes(name) ? names.indexOf(name) : names.length);
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => rank(a) - rank(b))) as T;
}

/** The same spec with its fields in the order of the OCI specification, as other clients write them. */
export function orderSpec(spec: RuntimeSpec): RuntimeSpec {
  const made = ordered(spec, orders.spec);
  if (made.process) made.process = ordered(made.process, orders.process);
  if (made.linux) made.linux = ordered(made.linux, orders.linux);
  if (made.linux?.resources) {
    made.linux.resources = ordered(made.linux.resources, orders.resources);
    if (made.linux.resources.cpu) made.linux.resources.cpu = ordered(made.linux.resources.cpu, orders.cpu);
  }
  return made;
}
