import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode } from '@gantry/api';
import type { CallOptions } from '@gantry/rpc';
import type { Content, IngestOptions } from './content.ts';
import type { ContentWriter } from './content-writer.ts';

/**
 * Opens a write, waiting while somebody else writes the same ref: two clients may well want the same blob.
 * @throws StatusError AlreadyExists if `settings.expected` is there, perhaps because the other one brought it
 */
export async function openWriter(
  content: Content,
  ref: string,
  settings: IngestOptions = {},
  options: Pick<CallOptions, 'signal'> = {},
): Promise<ContentWriter> {
  for (let wait = 50; ; wait = Math.min(wait * 2, 2000)) {
    try {
      return await content.writer(ref, settings, options);
    } catch (reason) {
      // A daemon that is gone is unavailable as well.
      if (!hasCode(reason, Code.Unavailable) || !/locked/.test(reason.message)) throw reason;
      await sleep(wait, undefined, options);
    }
  }
}
