import type { Command } from '../../command.ts';
import { notYet } from '../../not-yet.ts';

export const convert: Command = {
  name: 'convert',
  usage: 'make another form of an image',
  argsUsage: '[flags] <source_ref> <target_ref>',
  example: 'ctr images convert --oci example.com/app:1 example.com/app:1-oci',
  flags: [
    { name: 'uncompress', kind: 'bool', usage: 'take the compression off its layers' },
    { name: 'oci', kind: 'bool', usage: "use OCI's media types" },
    { name: 'erofs', kind: 'string', usage: 'make EROFS layers, with this compression' },
    { name: 'erofs-compressors', kind: 'string', usage: 'compressors of EROFS layers' },
    { name: 'erofs-mkfs-options', kind: 'string', usage: 'options of mkfs.erofs' },
    { name: 'platform', kind: 'strings', usage: 'for this platform' },
    { name: 'all-platforms', kind: 'bool', usage: 'for all platforms' },
  ],
  run: async () => {
    throw notYet('ctr images convert');
  },
};
