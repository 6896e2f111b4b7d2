import type { Command } from '../../command.ts';
import { active, edit, get, ingest, label, list, prune, remove } from './blobs.ts';
import { fetch, fetchBlob, fetchObject, pushObject } from './fetch.ts';

export const content: Command = {
  name: 'content',
  usage: 'manage blobs',
  example: 'ctr content ls',
  commands: [active, remove, edit, fetch, fetchObject, fetchBlob, get, ingest, list, pushObject, label, prune],
};
