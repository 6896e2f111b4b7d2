// `io.containerd.warning.v1.deprecations`: remembers, over restarts, which deprecated things were used and when.
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { formatTime, now, parseTime } from '@gantry/api';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { DeprecationWarning, WarningService } from '../../core/warnings/warning-service.ts';

type Stored = Record<string, { message: string; lastOccurrence: string }>;

async function load(file: string): Promise<Map<string, DeprecationWarning>> {
  const warnings = new Map<string, DeprecationWarning>();
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return warnings;
    throw error;
  }
  for (const [id, { message, lastOccurrence }] of Object.entries(JSON.parse(text) as Stored)) {
    const time = parseTime(lastOccurrence);
    if (time) warnings.set(id, { id, message, lastOccurrence: time });
  }
  return warnings;
}

export const deprecationsPlugin = definePlugin({
  type: PluginTypes.Warning,
  id: 'deprecations',
  init: async (context): Promise<WarningService> => {
    const file = `${context.root}/warnings.json`;
    const warnings = await load(file).catch((error) => {
      context.log.warn('cannot read earlier deprecation warnings', { file, error });
      return new Map<string, DeprecationWarning>();
    });
    let saving = Promise.resolve();
    const save = async () => {
      const stored: Stored = {};
      for (const { id, message, lastOccurrence } of warnings.values()) {
        stored[id] = { message, lastOccurrence: formatTime(lastOccurrence) };
      }
      await mkdir(context.root, { recursive: true, mode: 0o711 });
      await writeFile(`${file}.new`, JSON.stringify(stored), { mode: 0o600, flush: true });
      await rename(`${file}.new`, file);
    };
    const service: WarningService = {
      emit: (id, message) => {
        if (!warnings.has(id)) context.log.warn('deprecated feature used', { deprecation: id, message });
        warnings.set(id, { id, message, lastOccurrence: now() });
        // A disk that is full, say, is no reason for whoever warns to fail: it is shown as long as this daemon runs.
        saving = saving.then(save).catch((error) => context.log.warn('deprecation warnings are not kept', { error }));
        return saving;
      },
      warnings: () => [...warnings.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    };
    return service;
  },
});
