import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { endProcess, eventually, freePort, run } from './processes.ts';

/** Debian's docker-registry on the loopback interface, filled by skopeo. */
export class TestRegistry {
  readonly address: string;
  readonly #child: ChildProcess;

  private constructor(address: string, child: ChildProcess) {
    this.address = address;
    this.#child = child;
  }

  static async start(directory: string): Promise<TestRegistry> {
    mkdirSync(directory, { recursive: true });
    const port = await freePort();
    const config = path.join(directory, 'registry.yml');
    writeFileSync(
      config,
      `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: ${directory}/registry}, delete: {enabled: true}}
http: {addr: 127.0.0.1:${port}}
`,
    );
    const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
    const address = `localhost:${port}`;
    await eventually('docker-registry answers', async () => {
      if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}`);
      const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
      return answer?.ok ? true : undefined;
    });
    return new TestRegistry(address, child);
  }

  /** Copies an OCI layout into it with skopeo; answers the reference. */
  async fill(layout: string, name: string, tag = 'latest'): Promise<string> {
    const reference = `${this.address}/${name}`;
    await run('skopeo', [
      'copy',
      '--insecure-policy',
      '--dest-tls-verify=false',
      '-q',
      `oci:${layout}:${tag}`,
      `docker://${reference}`,
    ]);
    return reference;
  }

  async close(): Promise<void> {
    await endProcess(this.#child);
  }
}
