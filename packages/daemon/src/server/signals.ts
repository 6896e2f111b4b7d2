// Runs a daemon until it is told to stop: SIGTERM and SIGINT end it with containers left running, SIGUSR2 has it dump its state.
import type { Daemon } from './daemon.ts';

/** Starts the daemon and resolves when it has been stopped by a signal. A second signal ends the process at once. */
export async function runUntilSignal(daemon: Daemon): Promise<void> {
  let stop!: (signal: NodeJS.Signals) => void;
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    stop = resolve;
  });
  let stopping = false;
  const onStop = (signal: NodeJS.Signals): void => {
    daemon.log.info('received signal', { signal });
    if (stopping) process.exit(1);
    stopping = true;
    stop(signal);
  };
  process.on('SIGTERM', onStop);
  process.on('SIGINT', onStop);
  process.on('SIGUSR2', () => daemon.dump());
  // Whoever reads the log may go away; that is no reason to end.
  process.stderr.on('error', () => {});
  // A promise that nobody looked at is a fault of one call: told, and the others go on.
  process.on('unhandledRejection', (reason) => {
    daemon.log.error('unhandled rejection', {
      error: reason,
      stack: reason instanceof Error ? reason.stack : undefined,
    });
  });
  await daemon.start();
  await stopped;
  await daemon.close();
}
