/** `[plugins.'io.containerd.cri.v1.runtime'.cni]`. */
export interface CniSettings {
  /** Deprecated: where the plugins are, instead of `bin_dirs`. */
  bin_dir: string;
  bin_dirs: string[];
  conf_dir: string;
  /** How many networks a pod gets; 0: all that are there. */
  max_conf_num: number;
  setup_serially: boolean;
  conf_template: string;
  /** `` or `ipv4`, `ipv6`, `cni` (as the plugins order them). */
  ip_pref: string;
  use_internal_loopback: boolean;
}

/** What a runtime handler may say of its networks. */
export interface HandlerNetworks {
  /** '' for those of all. */
  cni_conf_dir: string;
  cni_max_conf_num: number;
}
