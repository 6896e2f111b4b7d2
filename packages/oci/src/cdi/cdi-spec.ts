/** A document of a specification directory (CDI 0.3.0 to 1.1.0), as far as it changes containers. */
export interface CdiSpec {
  cdiVersion: string;
  /** `vendor.com/class`. */
  kind: string;
  annotations?: Record<string, string>;
  devices: CdiDevice[];
  /** Made once in every container that gets any of the devices. */
  containerEdits?: ContainerEdits;
}

export interface CdiDevice {
  name: string;
  annotations?: Record<string, string>;
  containerEdits: ContainerEdits;
}

export interface ContainerEdits {
  env?: string[];
  deviceNodes?: DeviceNode[];
  netDevices?: { hostInterfaceName: string; name: string }[];
  hooks?: { hookName: string; path: string; args?: string[]; env?: string[]; timeout?: number }[];
  mounts?: { hostPath: string; containerPath: string; options?: string[]; type?: string }[];
  intelRdt?: IntelRdt;
  additionalGids?: number[];
}

export interface DeviceNode {
  /** In the container, and on the host too unless `hostPath` says otherwise. */
  path: string;
  hostPath?: string;
  type?: 'b' | 'c' | 'u' | 'p';
  major?: number;
  minor?: number;
  fileMode?: number;
  /** Of `r`, `w`, `m`; absent: all. */
  permissions?: string;
  uid?: number;
  gid?: number;
}

export interface IntelRdt {
  closID?: string;
  l3CacheSchema?: string;
  memBwSchema?: string;
  schemata?: string[];
  enableCMT?: boolean;
  enableMBM?: boolean;
  enableMonitoring?: boolean;
}

/** Names of the edits, each with what must be there for it to be one. */
const editNames = ['env', 'deviceNodes', 'netDevices', 'hooks', 'mounts', 'intelRdt', 'additionalGids'] as const;

/** Whether there is nothing to edit. */
export function isEmptyEdits(edits: ContainerEdits): boolean {
  return editNames.every((name) => {
    const value = edits[name];
    return value === undefined || (Array.isArray(value) && value.length === 0);
  });
}
