import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { defaultSpec } from '@gantry/oci';
import type { Rate } from './containers.ts';
import { CpuAccount } from './cpu-account.ts';
import type { Peer } from './peers.ts';

/**
 * The OCI runtime's `exec` of `true` in a daemon's container, without daemon and shim, one at a time, as Gantry calls it: what no
 * daemon that calls it can be better than.
 */
export async function execAlone(peer: Peer, containerId: string, runtime: string, seconds: number): Promise<Rate> {
  const account = new CpuAccount(`gantry-bench-${process.pid}-alone`);
  const directory = mkdtempSync(path.join(peer.state, 'alone-'));
  try {
    const document = path.join(directory, 'process.json');
    const { process: own } = defaultSpec('bench', 'exec');
    writeFileSync(document, JSON.stringify({ ...own, args: ['true'], env: ['PATH=/bin'] }));
    const command = [
      runtime,
      '--root',
      path.join(peer.runtimeRoot, 'bench'),
      'exec',
      '--process',
      document,
      '--detach',
    ];
    const args = [
      account.procs.join(' '),
      String(seconds),
      ...command,
      '--pid-file',
      path.join(directory, 'pid'),
      containerId,
    ];
    const child = spawn('sh', ['-c', loop, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, GOMAXPROCS: '1' },
    });
    let said = '';
    child.stdout.on('data', (data: Buffer) => {
      said += data.toString();
    });
    const startedAt = performance.now();
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}`);
    const count = Number(said);
    return {
      perSecond: (count / (performance.now() - startedAt)) * 1000,
      cpuMs: (account.seconds() * 1000) / count,
    };
  } finally {
    rmSync(directory, { recursive: true });
    await account.remove();
  }
}

/** Joins the groups in $0, and runs $2 and what follows for $1 seconds; prints how often. */
const loop = `for file in $0; do echo $$ > "$file"; done
end=$(($(date +%s) + $1)); shift; count=0
while [ $(date +%s) -lt $end ]; do "$@" || exit; count=$((count + 1)); done
echo $count`;
