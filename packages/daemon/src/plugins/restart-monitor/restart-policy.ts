import { invalidArgument } from '@gantry/api';

/** Labels of a container that the restart monitor reads and writes, as containerd names them. */
export const RestartLabels = {
  /** `running` or `stopped`: what the task shall be. Containers without it are left alone. */
  status: 'containerd.io/restart.status',
  policy: 'containerd.io/restart.policy',
  /** Where a restarted task's output goes: `file:///…`, `binary:///…`, a FIFO. */
  logUri: 'containerd.io/restart.loguri',
  /** How often the monitor has started it. */
  count: 'containerd.io/restart.count',
  explicitlyStopped: 'containerd.io/restart.explicitly-stopped',
  /** Dropped in containerd 2.0. */
  logPath: 'containerd.io/restart.logpath',
} as const;

export type RestartPolicyName = 'no' | 'always' | 'on-failure' | 'unless-stopped';

export interface RestartPolicy {
  name: RestartPolicyName;
  /** Of `on-failure`; 0 for no limit. */
  maximumRetries: number;
}

/** Reads a policy label; '' means `always`. @throws InvalidArgument */
export function parseRestartPolicy(text: string): RestartPolicy {
  const [name = '', retries] = text.split(':');
  switch (name) {
    case '':
    case 'no':
    case 'always':
    case 'unless-stopped':
      if (retries !== undefined) throw invalidArgument(`restart policy "${name}" not support max retry count`);
      return { name: name === '' ? 'always' : name, maximumRetries: 0 };
    case 'on-failure':
      if (retries !== undefined && !/^[+-]?\d+$/.test(retries)) {
        throw invalidArgument(`invalid max retry count: ${retries}`);
      }
      return { name, maximumRetries: Number(retries ?? 0) };
    default:
      throw invalidArgument(`restart policy "${text}" not supported`);
  }
}

/** What Go's strconv.ParseBool takes for true. */
const trueWords = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);

/**
 * Whether a task that does not run is to be started again. `exitStatus`: undefined if there is no task.
 * @throws InvalidArgument for labels that cannot be read
 */
export function shouldRestart(labels: Readonly<Record<string, string>>, exitStatus: number | undefined): boolean {
  const { name, maximumRetries } = parseRestartPolicy(labels[RestartLabels.policy] ?? '');
  switch (name) {
    case 'no':
      return false;
    case 'always':
      return true;
    case 'on-failure': {
      const count = labels[RestartLabels.count] ?? '';
      if (count !== '' && !/^\d+$/.test(count)) throw invalidArgument(`invalid restart count: ${count}`);
      // A task that was deleted has left no exit status: nobody can say that it failed.
      if (exitStatus === undefined || exitStatus === 0) return false;
      return maximumRetries <= 0 || Number(count) < maximumRetries;
    }
    case 'unless-stopped':
      return !trueWords.has(labels[RestartLabels.explicitlyStopped] ?? '');
  }
}
