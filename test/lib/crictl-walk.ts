// What a person at a node does with crictl, from the first look to the last cleaning, as a list of commands with what they printed.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { crictl } from './cri-lab.ts';
import { endProcess, eventually, run } from './processes.ts';
import { Terminal } from './terminal.ts';

/** One command of the walk. */
export interface Step {
  /** As typed, with ids as the walk names them. */
  command: string;
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs crictl against one runtime and keeps what it did. */
export class CrictlWalk {
  readonly steps: Step[] = [];
  readonly #address: string;
  readonly #directory: string;
  readonly #config: string;
  /** Ids of this run by what the walk calls them. */
  readonly #names = new Map<string, string>();

  /** @param directory for configurations and logs of pods; nothing else may be there */
  constructor(address: string, directory: string) {
    this.#address = `unix://${address}`;
    this.#directory = directory;
    this.#config = path.join(directory, 'crictl.yaml');
    mkdirSync(directory, { recursive: true });
  }

  /** One command, run to its end. Its failure is kept, not thrown. */
  async do(...args: string[]): Promise<Step> {
    return this.#keep(args, await run(crictl, this.#all(args), { mayFail: true }));
  }

  /** One that has to succeed; answers its output. */
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.do(...args);
    if (code !== 0) throw new Error(`crictl ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  /** The first step whose words are these, or begin so. */
  step(command: string): Step {
    const found =
      this.steps.find((step) => step.command === command) ??
      this.steps.find((step) => step.command.startsWith(`${command} `));
    if (!found) throw new Error(`the walk has no ${command}`);
    return found;
  }

  /** The whole walk. */
  async walk(): Promise<void> {
    await this.#atFirst();
    await this.#images();
    const events = this.#start(['events']);
    try {
      await this.#pods();
      await this.#inside();
      await this.#logs();
      await this.#numbers();
      await this.#changes();
      await this.#end();
      await eventually(
        'events came',
        () => (events.said().match(/CONTAINER_DELETED_EVENT/g) ?? []).length >= 4 || undefined,
        60_000,
      );
    } finally {
      await endProcess(events.child, 'SIGKILL');
    }
    this.#keep(['events'], { code: 0, stdout: events.said(), stderr: '' });
    await this.#cleaning();
  }

  async #atFirst(): Promise<void> {
    writeFileSync(this.#config, '');
    await this.do(
      'config',
      '--set',
      `runtime-endpoint=${this.#address}`,
      '--set',
      'timeout=60',
      '--set',
      'debug=false',
    );
    await this.do('config', '--list');
    await this.do('config', '--get', 'timeout');
    await this.do('version');
    await this.do('info');
    await this.do('info', '--quiet');
    await this.do('runtime-config');
    await this.do('pods');
    await this.do('ps');
  }

  async #images(): Promise<void> {
    await this.do('pull', 'busybox:1');
    await this.do('pull', 'volumes:1');
    await this.do('pull', 'no-such-image:1');
    await this.do('images');
    await this.do('images', '--digests', '--no-trunc');
    await this.do('images', '-o', 'json');
    await this.do('images', '-v');
    await this.do('images', '--filter', 'reference=busybox');
    await this.do('inspecti', 'busybox:1');
    await this.do('inspecti', 'no-such-image:1');
    await this.do('imagefsinfo', '-o', 'json');
  }

  async #pods(): Promise<void> {
    const pod = this.#pod('walk', { labels: { app: 'walk' }, annotations: { 'lab.test/why': 'a walk' } });
    const podId = await this.#id('POD', 'runp', pod);
    await this.do('pods');
    await this.do('pods', '-o', 'json');
    await this.do('pods', '-v');
    await this.do('pods', '-q', '--name', 'walk', '--label', 'app=walk', '--state', 'Ready', '--namespace', 'lab');
    await this.do('inspectp', podId);
    await this.do('runp', pod);
    const script = 'echo one; echo two; echo err >&2; echo three; exit 3';
    const first = await this.#id('FIRST', 'create', podId, this.#container('main', ['sh', '-c', script]), pod);
    await this.do('ps', '-a');
    await this.do('inspect', first);
    await this.do('start', first);
    await eventually(
      'the first has ended',
      async () => (await this.#quietly('ps', '-q', '--state', 'Exited')) !== '' || undefined,
      60_000,
    );
    await this.do('inspect', first);
    await this.do('start', first);
    const web =
      'trap "exit 0" TERM; busybox httpd -p 8080 -h /bin; echo up; while read line; do echo "got $line"; done';
    const main = await this.#id(
      'MAIN',
      'create',
      podId,
      this.#container('main', ['sh', '-c', web], {
        metadata: { name: 'main', attempt: 1 },
        log_path: 'main/1.log',
        stdin: true,
      }),
      pod,
    );
    await this.do('start', main);
    await this.do('ps');
    await this.do('ps', '-a', '-o', 'json');
    await this.do('ps', '-v', '--state', 'Running');
    await this.do('ps', '-q', '--latest');
    await this.do('ps', '-q', '--image', 'busybox:1', '--pod', podId, '--name', 'main');
    await this.do('inspect', main);
    await this.#id('RUN', 'run', '--no-pull', this.#container('run', ['sleep', '100000']), this.#pod('run'));
  }

  async #inside(): Promise<void> {
    const main = this.#of('MAIN');
    await this.do('exec', main, 'echo', 'hello');
    await this.do('exec', '--sync', main, 'sh', '-c', 'echo out; echo err >&2');
    await this.do('exec', '--sync', main, 'sh', '-c', 'exit 7');
    await this.do('exec', main, 'sh', '-c', 'exit 7');
    await this.do('exec', main, 'no-such-program');
    await this.do('exec', '--sync', main, 'no-such-program');
    await this.do('exec', '--sync', '--timeout', '1', main, 'sleep', '100');
    await this.do('exec', '--name', 'main', '-q', 'hostname');
    for (const way of [[], ['--transport', 'websocket']]) await this.do('exec', '-i', ...way, main, 'wc', '-c');
    // No shell with a prompt: how that edits its line depends on how fast one types.
    const words =
      'stty -echo; echo ready; read word; echo "$word"; until [ "$(stty size 2>/dev/null)" = "40 100" ]; do :; done; stty size; tty; exit 5';
    const terminal = new Terminal(crictl, this.#all(['exec', '-it', main, 'sh', '-c', words]));
    await terminal.expect('ready');
    terminal.type('typed\n');
    const code = await terminal.end();
    this.#keep(['exec', '-it', main, 'sh', '-c', words], { code, stdout: terminal.shown, stderr: '' });
    const attach = this.#start(['attach', '-i', main]);
    attach.child.stdin!.write('attached\n');
    await eventually('the container answers', () => attach.said().includes('got attached') || undefined, 60_000);
    await endProcess(attach.child, 'SIGKILL');
    this.#keep(['attach', '-i', main], { code: 0, stdout: attach.said(), stderr: '' });
    const forward = this.#start(['port-forward', this.#of('POD'), ':8080']);
    const port = await eventually('it listens', () => /127\.0\.0\.1:(\d+)/.exec(forward.said())?.[1], 60_000);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    http
      .get({ host: '127.0.0.1', port: Number(port), path: '/no-such-file', agent: false }, (response) => {
        text(response).then(() => resolve(`${response.statusCode}`), reject);
      })
      .on('error', reject);
    const answer = await promise;
    await endProcess(forward.child, 'SIGKILL');
    this.#keep(['port-forward', this.#of('POD'), ':8080'], { code: 0, stdout: `HTTP ${answer}\n`, stderr: '' });
  }

  async #logs(): Promise<void> {
    const [first, main] = [this.#of('FIRST'), this.#of('MAIN')];
    await this.do('logs', first);
    await this.do('logs', '--tail', '1', first);
    await this.do('logs', '--timestamps', first);
    await this.do('logs', '--stream', 'stderr', first);
    await this.do('logs', '--since', '1h', first);
    await this.do('logs', '--since', '2000-01-01T00:00:00Z', '--limit-bytes', '5', first);
    await this.do('logs', '-p', main);
    const follow = this.#start(['logs', '-f', main]);
    await eventually('the log is followed', () => follow.said().includes('got attached') || undefined, 60_000);
    await endProcess(follow.child, 'SIGKILL');
    this.#keep(['logs', '-f', main], { code: 0, stdout: follow.said(), stderr: '' });
    await this.do('logs', '--reopen', main);
    await this.do('logs', '--reopen', first);
    await this.do('logs', 'no-such-container');
  }

  async #numbers(): Promise<void> {
    for (const what of ['stats', 'statsp']) {
      await this.do(what);
      await this.do(what, '-o', 'json');
    }
    await this.do('stats', '--id', this.#of('MAIN'));
    await this.do('metricdescs', '-o', 'json');
    await this.do('metricsp', '-o', 'json');
  }

  async #changes(): Promise<void> {
    const main = this.#of('MAIN');
    await this.do('update', '--memory', '67108864', '--cpu-quota', '20000', '--cpu-period', '100000', main);
    await this.do('inspect', '-o', 'go-template', '--template', '{{json .status.resources}}', main);
    await this.do('update', '--memory', '67108864', this.#of('FIRST'));
    await this.do('update-runtime-config', '--pod-cidr', '10.1.0.0/16');
    await this.do('info', '--quiet');
  }

  async #end(): Promise<void> {
    const [main, pod] = [this.#of('MAIN'), this.#of('POD')];
    await this.do('rm', main);
    await this.do('stop', '--timeout', '30', main);
    await this.do('stop', main);
    await this.do('ps', '-a');
    await this.do('exec', '--sync', main, 'true');
    await this.do('rm', main);
    await this.do('rm', main);
    await this.do('rmp', pod);
    await this.do('stopp', pod);
    await this.do('pods');
    await this.do('inspectp', pod);
    await this.do('start', this.#of('FIRST'));
    await this.do('rmp', pod);
    await this.do('rmp', pod);
    await this.do('rmp', '-a', '-f');
    await this.do('ps', '-a');
    await this.do('pods');
  }

  async #cleaning(): Promise<void> {
    await this.do('rmi', 'volumes:1');
    await this.do('rmi', 'volumes:1');
    await this.do('rmi', '--prune');
    await this.do('images', '--pinned');
  }

  #all(args: string[]): string[] {
    return ['-c', this.#config, ...args];
  }

  #of(name: string): string {
    const id = this.#names.get(name);
    if (id === undefined) throw new Error(`the walk has not come to ${name}`);
    return id;
  }

  async #id(name: string, ...args: string[]): Promise<string> {
    const id = await this.ok(...args);
    this.#names.set(name, id);
    return id;
  }

  /** Asks without a place in the walk. */
  async #quietly(...args: string[]): Promise<string> {
    return (await run(crictl, this.#all(args))).stdout.trim();
  }

  /** A command that goes on until it is ended. */
  #start(args: string[]): { child: ChildProcess; said(): string } {
    const child = spawn(crictl, this.#all(args), { stdio: ['pipe', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    return { child, said: () => said };
  }

  #keep(args: string[], { code, stdout, stderr }: Omit<Step, 'command'>): Step {
    const named = (word: string) => [...this.#names].find(([, id]) => id === word)?.[0] ?? path.basename(word);
    const step = { command: args.map(named).join(' '), code, stdout, stderr };
    this.steps.push(step);
    return step;
  }

  #file(name: string, config: object): string {
    const file = path.join(this.#directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(config));
    return file;
  }

  #pod(name: string, more: object = {}): string {
    return this.#file(`pod-${name}`, {
      metadata: { name, namespace: 'lab', uid: `uid-${name}`, attempt: 0 },
      hostname: name,
      log_directory: path.join(this.#directory, 'logs', name),
      linux: {},
      ...more,
    });
  }

  #container(name: string, command: string[], more: object = {}): string {
    return this.#file(`container-${name}`, {
      metadata: { name, attempt: 0 },
      image: { image: 'busybox:1' },
      command,
      // As the kubelet has them, which `logs -p` goes by.
      log_path: `${name}/0.log`,
      linux: {},
      ...more,
    });
  }
}
