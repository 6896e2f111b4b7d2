import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type CtrClient, CtrSession, ctrClients } from './clients.ts';
import { TestDaemon } from './daemon.ts';
import { buildImage, busyboxLayer } from './images.ts';
import { type CommandResult, run } from './processes.ts';
import { registryUser, TestRegistry } from './registry.ts';
import { makeTempDir } from './temp-dir.ts';

/** Writes an executable shell script. */
export function program(file: string, script: string): string {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

/** A registry with one image under several names, a daemon, and the clients that pull through the transfer service. */
export class PullLab {
  readonly clients: readonly CtrClient[] = ctrClients().filter(({ transfer }) => transfer);
  readonly #temp;
  /** Lets everybody in. */
  registry!: TestRegistry;
  /** Of the image. */
  digest = '';
  daemon!: TestDaemon;

  constructor(name: string) {
    this.#temp = makeTempDir(name);
  }

  /** A path in the lab's own directory. */
  at(...parts: string[]): string {
    return path.join(this.#temp.path, ...parts);
  }

  get storage(): string {
    return this.at('storage');
  }

  /** Fills the registry with the image under these names, tag 1. */
  async fill(names: readonly string[]): Promise<void> {
    const layout = this.at('image');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sh'] });
    this.registry = await TestRegistry.start(this.at(), { storage: this.storage });
    for (const name of names) await this.registry.fill(layout, `${name}:1`);
    const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
      manifests: { digest: string }[];
    };
    this.digest = index.manifests[0]!.digest;
  }

  async startDaemon(config: string): Promise<void> {
    this.daemon = new TestDaemon(this.at('d'), config);
    await this.daemon.start();
  }

  async close(): Promise<void> {
    await this.daemon?.stop();
    await this.registry?.close();
    await this.#temp.remove();
  }

  /** Copies within the registry. */
  async copy(from: string, to: string): Promise<void> {
    const flags = ['-q', '--insecure-policy', '--src-tls-verify=false', '--dest-tls-verify=false'];
    await run('skopeo', ['copy', ...flags, `docker://${from}`, `docker://${to}`]);
  }

  /** A client in a namespace of its own. */
  session(client: CtrClient): CtrSession {
    return new CtrSession(client, this.daemon.address, `lab-${this.clients.indexOf(client)}`);
  }

  async pull(client: CtrClient, name: string, ...flags: string[]): Promise<CommandResult> {
    const result = await this.session(client).try('images', 'pull', '--plain-http', ...flags, name);
    assert.ok(!`${result.stdout}${result.stderr}`.includes(registryUser.password));
    return result;
  }

  /** Pulls, which has to succeed, and removes the image again. */
  async allowed(client: CtrClient, name: string, ...flags: string[]): Promise<void> {
    const { code, stderr } = await this.pull(client, name, ...flags);
    assert.equal(code, 0, stderr);
    const session = this.session(client);
    assert.match(await session.ok('images', 'ls', '-q'), new RegExp(`^${name}$`, 'm'));
    await session.ok('images', 'rm', name);
  }

  /** Pulls, which has to fail with that message and to leave no image. */
  async denied(client: CtrClient, name: string, message: RegExp, ...flags: string[]): Promise<void> {
    const { code, stderr } = await this.pull(client, name, ...flags);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.ok(!(await this.session(client).ok('images', 'ls', '-q')).includes(name));
  }
}
