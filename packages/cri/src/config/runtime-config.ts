import { field, schema } from '@gantry/daemon/core/plugin/config-schema.ts';
import { parseDuration } from '@gantry/daemon/core/plugin/duration.ts';
import type { ConfigOf } from './images-config.ts';

/** What containerd sets for the handler `runc`. */
const runcOptions = {
  BinaryName: '',
  CriuImagePath: '',
  CriuWorkPath: '',
  IoGid: 0,
  IoUid: 0,
  NoNewKeyring: false,
  Root: '',
  ShimCgroup: '',
  SystemdCgroup: false,
};

const isDurationOrNone = (value: string): string | undefined =>
  value === '' || parseDuration(value) !== undefined ? undefined : 'a duration such as "10s", or ""';

const runtimeFields = {
  runtime_type: field.string(''),
  runtime_path: field.string(''),
  /** Annotations of pods that are passed to the runtime, as glob patterns. */
  pod_annotations: field.strings(),
  container_annotations: field.strings(),
  privileged_without_host_devices: field.boolean(false),
  privileged_without_host_devices_all_devices_allowed: field.boolean(false),
  cgroup_writable: field.boolean(false),
  /** A JSON file that specifications start from. */
  base_runtime_spec: field.string(''),
  cni_conf_dir: field.string(''),
  cni_max_conf_num: field.integer(0),
  snapshotter: field.string(''),
  sandboxer: field.string('podsandbox'),
  /** `` or `fifo`; `streaming`. */
  io_type: field.string('', (value) =>
    ['', 'fifo', 'streaming'].includes(value) ? undefined : '"", "fifo" or "streaming"',
  ),
  options: field.any({}),
};

/** `[plugins.'io.containerd.cri.v1.runtime']`. */
export const runtimeConfig = schema({
  enable_selinux: field.boolean(false),
  selinux_category_range: field.integer(1024),
  max_container_log_line_size: field.integer(16384),
  disable_apparmor: field.boolean(false),
  restrict_oom_score_adj: field.boolean(false),
  disable_proc_mount: field.boolean(false),
  unset_seccomp_profile: field.string(''),
  tolerate_missing_hugetlb_controller: field.boolean(true),
  disable_hugetlb_controller: field.boolean(true),
  device_ownership_from_security_context: field.boolean(false),
  ignore_image_defined_volumes: field.boolean(false),
  netns_mounts_under_state_dir: field.boolean(false),
  enable_unprivileged_ports: field.boolean(true),
  enable_unprivileged_icmp: field.boolean(true),
  enable_cdi: field.boolean(true),
  cdi_spec_dirs: field.strings(['/etc/cdi', '/var/run/cdi']),
  drain_exec_sync_io_timeout: field.duration('0s'),
  ignore_deprecation_warnings: field.strings(),
  /** How often processor time is looked at, for rates; '': whenever somebody asks. */
  stats_collect_period: field.string('', isDurationOrNone),
  /** Samples older than this say nothing of the rate now; '': two minutes. */
  stats_retention_period: field.string('', isDurationOrNone),
  enable_criu: field.boolean(true),
  enable_experimental_restore_via_create: field.boolean(false),
  containerd: field.table({
    default_runtime_name: field.string('runc'),
    ignore_blockio_not_enabled_errors: field.boolean(false),
    ignore_rdt_not_enabled_errors: field.boolean(false),
    runtimes: field.tables(runtimeFields, {
      runc: { runtime_type: 'io.containerd.runc.v2', options: runcOptions },
    }),
  }),
  cni: field.table({
    bin_dir: field.string(''),
    bin_dirs: field.strings(['/opt/cni/bin']),
    conf_dir: field.string('/etc/cni/net.d'),
    max_conf_num: field.integer(1),
    setup_serially: field.boolean(false),
    conf_template: field.string(''),
    ip_pref: field.string('', (value) =>
      ['', 'ipv4', 'ipv6', 'cni'].includes(value) ? undefined : '"", "ipv4", "ipv6" or "cni"',
    ),
    use_internal_loopback: field.boolean(false),
  }),
});

export type RuntimeConfig = ConfigOf<typeof runtimeConfig>;
export type RuntimeHandlerConfig = RuntimeConfig['containerd']['runtimes'][string];
