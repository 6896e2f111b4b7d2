import { randomInt } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { SELinuxOption } from '@gantry/api/gen/cri/v1/api_pb.js';
import { askedContext, formatContext, parseContext } from './selinux-context.ts';

export interface SelinuxLabels {
  /** Of processes; '' for none. */
  process: string;
  /** Of the files that are theirs. */
  mount: string;
}

export interface SelinuxOptions {
  /** Whether labels are used where the kernel has them. */
  enabled: boolean;
  /** Categories are chosen below this. */
  categoryRange: number;
  /** Where the machine's files are, for tests. Default: ''. */
  root?: string;
}

const mostCategories = 1024;

/**
 * Labels for pods, by the policy's own table (`lxc_contexts`): a pair of categories that no other pod has keeps pods apart. Without
 * SELinux, or with it off, all labels are ''.
 */
export class Selinux {
  /** Whether the kernel has it, whatever the configuration says. */
  readonly supported: boolean;
  readonly enabled: boolean;
  readonly #range: number;
  readonly #table: ReadonlyMap<string, string>;
  readonly #taken = new Set<string>();

  constructor({ enabled, categoryRange, root = '' }: SelinuxOptions) {
    this.supported = kernelHasSelinux(root);
    this.enabled = enabled && this.supported;
    this.#range = categoryRange > 1 ? Math.min(categoryRange, mostCategories) : mostCategories;
    this.#table = this.enabled ? contextTable(root) : new Map();
    // What privileged programs mount has the last two: nobody's pod gets them.
    if (this.enabled) this.#taken.add(`s0:c${mostCategories - 2},c${mostCategories - 1}`);
  }

  /**
   * Labels with what is asked for in particular; of a container without a word of its own they are its pod's. Their level is taken until
   * `release`. @throws InvalidArgument for a level that is none
   */
  labels(options: SELinuxOption | undefined, podLabel = ''): SelinuxLabels {
    let asked = askedContext(options);
    if (!this.enabled) return { process: '', mount: '' };
    if (Object.keys(asked).length === 0 && podLabel !== '') asked = parseContext(podLabel);
    const table = { process: this.#table.get('process') ?? '', file: this.#table.get('file') ?? '' };
    if (table.process === '' || table.file === '') return { process: '', mount: table.file };
    const process = { ...parseContext(table.process), ...asked };
    const mount = { ...parseContext(table.file) };
    if (asked.user !== undefined) mount.user = asked.user;
    if (asked.level === undefined && parseContext(table.process).level !== '') process.level = this.#freeLevel();
    if (process.level !== '') mount.level = process.level;
    this.#taken.add(process.level);
    return { process: formatContext(process), mount: formatContext(mount) };
  }

  #freeLevel(): string {
    for (;;) {
      const [one, other] = [randomInt(this.#range), randomInt(this.#range)].sort((a, b) => a - b);
      if (one === other) continue;
      const level = `s0:c${one},c${other}`;
      if (!this.#taken.has(level)) return level;
    }
  }

  /** Notes a label that is in use, of a pod from before this daemon. */
  reserve(label: string): void {
    if (this.enabled && label !== '') this.#taken.add(parseContext(label).level);
  }

  /** Whoever it was of is gone. */
  release(label: string): void {
    if (this.enabled && label !== '') this.#taken.delete(parseContext(label).level);
  }

  /** The label of a process that is a virtual machine, made from one that is not. */
  forVirtualMachine(label: string): string {
    const type = this.#table.get('kvm_process');
    if (label === '' || !type) return label;
    return formatContext({ ...parseContext(label), type: parseContext(type).type });
  }
}

function kernelHasSelinux(root: string): boolean {
  if (!existsSync(`${root}/sys/fs/selinux/enforce`)) return false;
  try {
    const own = readFileSync(`${root}/proc/self/attr/current`, 'latin1').replace(/\0.*$/s, '').trim();
    return own !== '' && own !== 'kernel';
  } catch {
    return false;
  }
}

/** `key = "value"` a line; the containers' own table goes before the policy's. */
function contextTable(root: string): Map<string, string> {
  const policy = settings(`${root}/etc/selinux/config`).get('SELINUXTYPE') ?? 'targeted';
  const own = `${root}/usr/share/containers/selinux/contexts`;
  return settings(existsSync(own) ? own : `${root}/etc/selinux/${policy}/contexts/lxc_contexts`);
}

function settings(file: string): Map<string, string> {
  let text = '';
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    // A machine without a policy has no labels.
  }
  const lines = text.split('\n').map((line) => line.trim());
  return new Map(
    lines
      .filter((line) => line !== '' && !/^[#;]/.test(line) && line.includes('='))
      .map((line) => {
        const at = line.indexOf('=');
        return [
          line.slice(0, at).trim(),
          line
            .slice(at + 1)
            .trim()
            .replace(/^"|"$/g, ''),
        ];
      }),
  );
}
