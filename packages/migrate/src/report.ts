import type { CarriedConfig } from './carry-config.ts';
import type { NamespaceRecord } from './containerd/records.ts';
import type { Feature } from './features.ts';
import type { Survey } from './survey.ts';
import type { Difference } from './takeover/differences.ts';
import type { GivenBack } from './takeover/give-back.ts';
import type { Takeover } from './takeover/takeover.ts';

/** All that a report says, in the form in which `--format json` prints it. */
export interface Report {
  from: { root: string; state: string; schema: number };
  /** False for a dry run. */
  done: boolean;
  namespaces: Record<string, unknown>[];
  snapshotters: Record<string, unknown>[];
  tasks: { namespace: string; id: string; pid: number | undefined; taken: boolean }[];
  sandboxes: { namespace: string; id: string }[];
  content: Takeover['content'] | undefined;
  config: CarriedConfig | undefined;
  notTaken: string[];
  features: Feature[];
}

export function reportOf(takeover: Takeover, used: Feature[]): Report {
  const { survey, snapshots, tasks, content, config, problems } = takeover;
  const taken = new Set(tasks.taken.map(({ namespace, id }) => `${namespace}/${id}`));
  return {
    from: { root: survey.root, state: survey.state, schema: survey.metadata.version },
    done: content !== undefined,
    namespaces: survey.metadata.namespaces.map((one) => countsOf(one, survey)),
    snapshotters: [...survey.stored].map(([name, stored]) => {
      const count = (kind: string) => [...stored.values()].filter((one) => one.kind === kind).length;
      const copied = (snapshots.get(name) ?? []).filter((one) => one.copied).length;
      const usedThere = (snapshots.get(name) ?? []).length - copied;
      return {
        name,
        committed: count('committed'),
        active: count('active'),
        views: count('view'),
        inPlace: usedThere,
        copied,
      };
    }),
    tasks: survey.tasks.map(({ namespace, id, pid }) => ({
      namespace,
      id,
      pid,
      taken: taken.has(`${namespace}/${id}`),
    })),
    sandboxes: tasks.sandboxes.map(({ namespace, id }) => ({ namespace, id })),
    content,
    config,
    notTaken: problems,
    features: used,
  };
}

function countsOf(one: NamespaceRecord, { tasks }: Survey): Record<string, unknown> {
  return {
    namespace: one.name,
    images: one.images.length,
    containers: one.containers.length,
    running: tasks.filter((task) => task.namespace === one.name && task.pid).length,
    blobs: one.content.length,
    bytes: Number(one.content.reduce((sum, { size }) => sum + size, 0n)),
    snapshots: one.snapshots.length,
    leases: one.leases.length,
    sandboxes: one.sandboxes.length,
  };
}

/** The same for a person to read. */
export function reportText({ from, done, ...report }: Report): string {
  const lines = [`root:   ${from.root} (metadata of schema version ${from.schema})`, `state:  ${from.state}`];
  lines.push(...section(report.namespaces));
  lines.push(...section(report.snapshotters.map(({ name, ...rest }) => ({ snapshotter: name, ...rest }))));
  lines.push(
    ...section(
      report.tasks.map(({ namespace, id, pid, taken }) => ({
        namespace,
        task: id,
        pid: pid ?? 'not running',
        ...(!taken && { '': 'not taken' }),
      })),
    ),
  );
  lines.push(...section(report.sandboxes.map(({ namespace, id }) => ({ namespace, sandbox: id }))));
  if (report.content) {
    const { cloned, linked, copied, there } = report.content;
    lines.push('', `Blobs: ${cloned} cloned, ${linked} linked, ${copied} copied, ${there} there already.`);
  }
  if (report.config === 'written')
    lines.push('containerd’s configuration was brought to the newest version and put in place.');
  if (report.config === 'kept') lines.push('The configuration that was here already was kept.');
  if (report.features.length > 0) {
    lines.push('', 'What is used, and what it needs:');
    for (const { name, usedBy, state, needs } of report.features) {
      const mark = { there: 'ok', needed: 'to do', absent: 'not here' }[state];
      lines.push(`  [${mark}] ${printable(name)} (${printable(usedBy)}): ${printable(needs)}`);
    }
  }
  lines.push('', report.notTaken.length === 0 ? 'No problems found.' : 'Not to be taken as it is:');
  for (const problem of report.notTaken) lines.push(`  ${printable(problem)}`);
  if (done) lines.push('', 'Taken over. Start gantryd now; containerd cannot start while it runs.');
  return `${lines.join('\n')}\n`;
}

/** What the way back leaves behind, for a person to read. */
export function givenBackText({ from, stopped, differences }: GivenBack): string {
  const lines = [stopped === undefined ? 'gantryd did not run.' : `gantryd (process ${stopped}) has stopped.`];
  const list = (how: Difference['how'], title: string) => {
    const these = differences.filter((one) => one.how === how);
    if (these.length === 0) return;
    lines.push('', title);
    for (const { kind, namespace, name } of these) lines.push(`  ${kind} ${printable(namespace)}/${printable(name)}`);
  };
  list('made', 'Made since, which containerd cannot see:');
  list('changed', 'Changed since, which containerd has as they were:');
  list('gone', 'Removed or ended since, which containerd still has or will find ended:');
  if (differences.length === 0) lines.push('Nothing has changed since it was taken over.');
  lines.push('', `containerd can be started again (${from.root}).`);
  return `${lines.join('\n')}\n`;
}

/** A table with the keys of its first row as titles, after an empty line; nothing if there are no rows. */
function section(rows: readonly Record<string, unknown>[]): string[] {
  if (rows.length === 0) return [];
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const titles = keys.map((key) => key.replace(/[A-Z]/g, (letter) => ` ${letter}`).toUpperCase());
  return ['', ...table([titles, ...rows.map((row) => keys.map((key) => printable(String(row[key] ?? ''))))])];
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}

/** Names come from files that anybody may have written: none moves the cursor of a terminal. */
function printable(name: string): string {
  return name.replace(/\p{C}/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
