// Flags that several commands about images share, and what they mean.
import type { ImageSelection } from '@gantry/client';
import { defaultPlatform, parsePlatform } from '@gantry/oci';
import type { Flag, Invocation } from './command.ts';
import { parseLabels } from './units.ts';

export const platformFlags: readonly Flag[] = [
  { name: 'platform', kind: 'strings', usage: 'for this platform: linux/arm64' },
  { name: 'all-platforms', kind: 'bool', usage: 'for all platforms' },
];
export const labelFlag: Flag = { name: 'label', kind: 'strings', usage: 'labels of the image: key=value' };
export const localFlag: Flag = { name: 'local', kind: 'bool', usage: 'do the work in this program, not in the daemon' };

/** Which parts the flags choose. No platforms at all mean every one. */
export function selectionOf(invocation: Invocation): Required<Pick<ImageSelection, 'platforms' | 'labels'>> {
  const named = invocation.strings('platform').map(parsePlatform);
  const labels = parseLabels(invocation.strings('label'));
  const platforms = named.length > 0 ? named : invocation.bool('all-platforms') ? [] : [defaultPlatform()];
  return { platforms, labels };
}
