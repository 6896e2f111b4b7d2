// What the end of an attached client's input is to the client and to the container: by crictl, on Gantry and on containerd.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { CriLab, crictl } from '../lib/cri-lab.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { Terminal } from '../lib/terminal.ts';

const patience = 60_000;

/** A client of a CRI that attaches to containers which answer line by line, and say so when there is no more. */
class Attacher {
  readonly #lab: CriLab;
  readonly #endpoint: string[];
  #pod = { id: '', file: '' };

  constructor(lab: CriLab, address: string) {
    this.#lab = lab;
    this.#endpoint = ['--runtime-endpoint', `unix://${address}`, '--image-endpoint', `unix://${address}`, '-t', '60s'];
  }

  async #ok(...args: string[]): Promise<string> {
    return (await run(crictl, [...this.#endpoint, ...args])).stdout.trim();
  }

  async begin(): Promise<void> {
    await this.#ok('pull', 'busybox:1');
    const file = this.#lab.pod('attach');
    this.#pod = { id: await this.#ok('runp', file), file };
  }

  async end(): Promise<void> {
    await this.#ok('rmp', '-a', '-f');
  }

  async container(name: string, settings: { stdin_once: boolean; tty: boolean }): Promise<string> {
    const script = 'while read line; do echo "got $line"; done; echo no more; exec sleep 100000';
    const file = this.#lab.container(name, ['sh', '-c', script], { stdin: true, ...settings });
    const id = await this.#ok('create', this.#pod.id, file, this.#pod.file);
    await this.#ok('start', id);
    return id;
  }

  /** Says a line, waits for the answer, and ends the input. @returns the client, which may go by that */
  async sayAndClose(
    id: string,
    word: string,
  ): Promise<{ shown: () => string; closed: Promise<unknown>; stop(): Promise<void> }> {
    const client = spawn(crictl, [...this.#endpoint, 'attach', '-i', id]);
    let out = '';
    for (const stream of [client.stdout, client.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        out += text;
      });
    }
    const closed = once(client, 'close');
    client.stdin.write(`${word}\n`);
    await eventually('it answers', () => (out.includes(`got ${word}`) ? true : undefined), patience);
    client.stdin.end();
    return { shown: () => out, closed, stop: () => endProcess(client, 'SIGKILL') };
  }

  /** Says a line on a terminal, waits for the answer, and goes. */
  async sayAndGo(id: string, word: string): Promise<void> {
    const terminal = new Terminal(crictl, [...this.#endpoint, 'attach', '-it', id]);
    terminal.type(`${word}\n`);
    await terminal.expect(`got ${word}`);
    terminal.kill();
    await terminal.end();
  }
}

/** What containerd does, and so do we. */
function behaves(attacher: () => Attacher): void {
  test('the input of one client is not that of all: its end is the end of attaching, and nothing to the container', async () => {
    const id = await attacher().container('again', { stdin_once: false, tty: false });
    for (const word of ['one', 'two']) {
      const { closed, shown } = await attacher().sayAndClose(id, word);
      await closed;
      assert.doesNotMatch(shown(), /no more/);
    }
  });

  test('with stdin_once it is the end of the container’s, and the client stays for the output', async () => {
    const id = await attacher().container('once', { stdin_once: true, tty: false });
    const { shown, closed, stop } = await attacher().sayAndClose(id, 'one');
    await eventually('it is told', () => (shown().includes('no more') ? true : undefined), patience);
    await stop();
    await closed;
  });

  for (const stdin_once of [false, true]) {
    test(`a terminal stays open when its client goes, stdin_once: ${stdin_once}`, async () => {
      const id = await attacher().container(`terminal-${stdin_once}`, { stdin_once, tty: true });
      for (const word of ['one', 'two']) await attacher().sayAndGo(id, word);
    });
  }
}

describe('the end of an attached client’s input', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('cri-attach');
  const lab = new CriLab(temp.path, { bridge: 'gantryattach0', subnet: '10.226.0.0/24' });
  const ours = new Attacher(lab, lab.daemon.address);
  before(async () => {
    await lab.start();
    await ours.begin();
  });
  after(() => lab.end(temp));
  behaves(() => ours);

  describe('under containerd 2.3.4', { skip: TestContainerd.missing(containerd2) }, () => {
    const containerd = new TestContainerd(path.join(temp.path, 'c'), containerd2, {}, lab.containerdConfig);
    const theirs = new Attacher(lab, containerd.address);
    before(async () => {
      await containerd.start();
      await theirs.begin();
    });
    after(async () => {
      await theirs.end();
      await containerd.stop();
    });
    behaves(() => theirs);
  });
});
