// A container's process: writes so many numbered lines on both streams, in pieces that do not end where lines do.
import { writeSync } from 'node:fs';
import { numberedLine } from './log-lines.ts';

const lines = Number(process.argv[2]);
const pauseMs = Number(process.argv[3] ?? 0);
const rest = new Int32Array(new SharedArrayBuffer(4));

function write(fd: number, text: string): void {
  const bytes = Buffer.from(text, 'latin1');
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at, Math.min(bytes.length - at, 10_007));
    } catch (error) {
      // Node may have made it non-blocking.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(rest, 0, 0, 1);
    }
  }
}

const pending = { stdout: '', stderr: '' };
for (let n = 0; n < lines; n++) {
  for (const [fd, name] of [
    [1, 'stdout'],
    [2, 'stderr'],
  ] as const) {
    pending[name] += `${numberedLine(name, n)}\n`;
    if (pending[name].length < 3001) continue;
    write(fd, pending[name].slice(0, 3001));
    pending[name] = pending[name].slice(3001);
  }
  if (pauseMs > 0 && n % 1000 === 0) Atomics.wait(rest, 0, 0, pauseMs);
}
write(1, pending.stdout);
write(2, pending.stderr);
