import type { Command } from '../../command.ts';
import { exportImages, importImages } from './archive.ts';
import { convert } from './convert.ts';
import { inspect } from './inspect.ts';
import { check, list } from './list.ts';
import { mount, unmount, usage } from './mount.ts';
import { pull } from './pull.ts';
import { push } from './push.ts';
import { label, prune, remove } from './records.ts';
import { tag } from './tag.ts';

export const images: Command = {
  name: 'images',
  aliases: ['image', 'i'],
  usage: 'manage images',
  example: 'ctr images ls',
  commands: [
    check,
    exportImages,
    importImages,
    inspect,
    list,
    mount,
    unmount,
    pull,
    push,
    prune,
    remove,
    tag,
    label,
    convert,
    usage,
  ],
};
