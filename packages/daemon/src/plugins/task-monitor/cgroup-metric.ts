/** One number of a container's cgroup as Prometheus is shown it, under containerd's name. */
export interface CgroupMetric<Stats> {
  /** With its unit, as `container_memory_usage_bytes`. */
  readonly name: string;
  readonly help: string;
  /** None if the cgroup does not count it. */
  values(stats: Stats): Iterable<CgroupValue>;
}

export interface CgroupValue {
  value: number;
  /** Besides those that name the container. */
  labels?: Record<string, string>;
}

/** A metric of one value; `read` answers undefined where the cgroup does not count it. */
export function single<Stats>(
  name: string,
  help: string,
  read: (stats: Stats) => bigint | undefined,
): CgroupMetric<Stats> {
  return {
    name: `container_${name}`,
    help,
    values(stats) {
      const value = read(stats);
      return value === undefined ? [] : [{ value: Number(value) }];
    },
  };
}

/** A metric with a value for each entry of a list. */
export function several<Stats, Entry>(
  name: string,
  help: string,
  entries: (stats: Stats) => readonly Entry[] | undefined,
  read: (entry: Entry, index: number) => { value: bigint; labels: Record<string, string> },
): CgroupMetric<Stats> {
  return {
    name: `container_${name}`,
    help,
    values: (stats) =>
      (entries(stats) ?? []).map((entry, index) => {
        const { value, labels } = read(entry, index);
        return { value: Number(value), labels };
      }),
  };
}
