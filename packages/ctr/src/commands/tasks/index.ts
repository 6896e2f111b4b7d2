import type { Command } from '../../command.ts';
import { copy } from './copy.ts';
import { exec } from './exec.ts';
import { attach, checkpoint, kill, pause, remove, resume, start } from './lifecycle.ts';
import { list, metrics, ps } from './look.ts';

export const tasks: Command = {
  name: 'tasks',
  aliases: ['t', 'task'],
  usage: 'manage running containers',
  example: 'ctr tasks ls',
  commands: [attach, checkpoint, copy, remove, exec, list, kill, metrics, pause, ps, resume, start],
};
