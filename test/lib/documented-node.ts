import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { bin } from './daemon.ts';

/** Where containerd and gantryd have what is theirs by default. */
export const daemonPlaces = [
  '/etc/containerd',
  '/var/lib/containerd',
  '/run/containerd',
  '/etc/gantry',
  '/var/lib/gantry',
  '/run/gantry',
];

/** Lines of a shell that lay empty directories of `$NODE_DIR` over such places, in a mount namespace of its own. */
export function emptyPlaces(places: readonly string[]): string[] {
  return places.map((place, at) => `mkdir -p ${place} "$NODE_DIR/${at}"; mount --bind "$NODE_DIR/${at}" ${place}`);
}

/** The commands of a page, block by block. */
export function commandsOf(page: string): string[] {
  return [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = '']) => block.trim());
}

/** Starts and stops by name what a node runs, as a service manager would. */
const systemctl = `#!/bin/sh
action=$1 unit=$2
pidfile=$NODE_DIR/$unit.pid
alive() { [ -f $pidfile ] && kill -0 $(cat $pidfile) 2>/dev/null; }
stop() { alive && kill $(cat $pidfile); while alive; do sleep 0.05; done; rm -f $pidfile; }
ready() {
  case $unit in
    containerd) $NODE_ASK /run/containerd/containerd.sock version;;
    gantryd) $NODE_ASK /run/gantry/gantry.sock version;;
    kubelet) grep -q 'Started kubelet' $NODE_DIR/kubelet.log;;
  esac >/dev/null 2>&1
}
start() {
  alive && return
  : >$NODE_DIR/$unit.log
  setsid $unit >>$NODE_DIR/$unit.log 2>&1 </dev/null & echo $! >$pidfile
  for i in $(seq 600); do
    ready && return
    alive || { cat $NODE_DIR/$unit.log >&2; exit 1; }
    sleep 0.1
  done
  exit 1
}
case $action in start) start;; stop) stop;; restart) stop; start;; enable|disable) ;; *) exit 1;; esac
`;

/**
 * Puts `systemctl` and `gantryd` among the programs of a node whose directory is `$NODE_DIR`.
 * @param ask the client that is to answer before a daemon counts as started, up to its socket: `ctr -a`
 */
export function nodePrograms(directory: string, ask: string): void {
  const put = (name: string, text: string): void => writeFileSync(path.join(directory, name), text, { mode: 0o755 });
  put('systemctl', systemctl.replaceAll('$NODE_ASK', ask));
  put('gantryd', `#!/bin/sh\nexec '${bin.gantryd}' "$@"\n`);
}
