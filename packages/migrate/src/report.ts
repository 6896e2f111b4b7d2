import type { Survey } from './survey.ts';

/** What a survey found, for a person to read. */
export function reportText({ root, state, metadata, stored, tasks, problems }: Survey): string {
  const lines = [`root:   ${root} (metadata of schema version ${metadata.version})`, `state:  ${state}`, ''];
  const running = (namespace: string) => tasks.filter((task) => task.namespace === namespace && task.pid).length;
  lines.push(
    ...table([
      ['NAMESPACE', 'IMAGES', 'CONTAINERS', 'RUNNING', 'BLOBS', 'BYTES', 'SNAPSHOTS', 'LEASES', 'SANDBOXES'],
      ...metadata.namespaces.map((one) => [
        printable(one.name),
        one.images.length,
        one.containers.length,
        running(one.name),
        one.content.length,
        one.content.reduce((sum, { size }) => sum + size, 0n),
        one.snapshots.length,
        one.leases.length,
        one.sandboxes.length,
      ]),
    ]),
  );
  if (stored.size > 0) {
    const rows = [...stored].map(([name, snapshots]) => {
      const count = (kind: string) => [...snapshots.values()].filter((one) => one.kind === kind).length;
      return [name, count('committed'), count('active'), count('view')];
    });
    lines.push('', ...table([['SNAPSHOTTER', 'COMMITTED', 'ACTIVE', 'VIEWS'], ...rows]));
  }
  if (tasks.length > 0) {
    const rows = tasks.map(({ namespace, id, pid }) => [printable(namespace), printable(id), pid ?? 'not running']);
    lines.push('', ...table([['NAMESPACE', 'TASK', 'PID'], ...rows]));
  }
  lines.push('', problems.length === 0 ? 'No problems found.' : 'Not to be taken as it is:');
  for (const problem of problems) lines.push(`  ${printable(problem)}`);
  return `${lines.join('\n')}\n`;
}

function table(rows: readonly (readonly unknown[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  return rows.map((row) =>
    row
      .map((cell, column) => String(cell).padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}

/** Names come from files that anybody may have written: none moves the cursor of a terminal. */
function printable(name: string): string {
  return name.replace(/\p{C}/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
