/** Filesystems that a program mounts and serves: FUSE. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { unknown } from '@gantry/api';
import type { Mount } from './mount.ts';

const helpers = { 'fuse3.': 'mount.fuse3', 'fuse.': 'mount.fuse' };
/** Where the helpers are, whatever PATH the daemon was started with. */
const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

interface Helper {
  program: string;
  /** The filesystem as the helper is told of it, which is the program it starts. */
  subtype: string;
}

/** Who mounts a type such as `fuse3.fuse-overlayfs`; undefined: the kernel does. */
export function mountHelper(type: string): Helper | undefined {
  for (const [prefix, program] of Object.entries(helpers)) {
    if (type.startsWith(prefix)) return { program, subtype: type.slice(prefix.length) };
  }
  return undefined;
}

/**
 * Has a helper mount on `target` (a path, as another process opens it). The filesystem's process is no child of ours and ends when
 * it is unmounted. @throws StatusError with what the helper printed
 */
export async function mountByHelper({ program, subtype }: Helper, mount: Mount, target: string): Promise<void> {
  const args = [mount.source, target];
  for (const option of mount.options) if (!option.startsWith('X-containerd.')) args.push('-o', option);
  args.push('-t', subtype);
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:${systemPath}` };
  const child = spawn(program, args, { cwd: '/', env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const pipe of [child.stdout, child.stderr]) {
    pipe.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4096);
    });
  }
  // `exit`, not `close`: the filesystem's process may keep the pipes.
  const [code, signal] = await once(child, 'exit').catch((error: Error) => {
    throw unknown(`mount helper [${program} ${args.join(' ')}] failed: ${error.message}`, error);
  });
  child.stdout.destroy();
  child.stderr.destroy();
  if (code !== 0) {
    throw unknown(
      `mount helper [${program} ${args.join(' ')}] failed: ${JSON.stringify(said)}: ${signal ? `signal ${signal}` : `exit status ${code}`}`,
    );
  }
}
