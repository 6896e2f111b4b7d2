import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((file) => existsSync(file));
const main = path.join(import.meta.dirname, '../main.ts');

/** What a command printed and how it ended. */
export interface Ran {
  stdout: string;
  stderr: string;
  code: number;
}

/** A containerd of its own, with one image, whose containers run under gantry-shim. `close` leaves nothing of it. */
export class ContainerdLab {
  static readonly image = 'gantry.test/busybox:1';
  readonly directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-peer-'));
  readonly #bin: string;
  #daemon: ChildProcess | undefined;

  /** `bin`: the directory of `containerd` and `ctr`. */
  constructor(bin: string) {
    this.#bin = bin;
  }

  /** Why this containerd cannot be used here; undefined if it can. */
  static unable(bin: string): string | undefined {
    if (process.geteuid?.() !== 0) return 'needs root';
    if (!busybox) return 'needs a static busybox';
    return ['containerd', 'ctr'].every((name) => existsSync(path.join(bin, name)))
      ? undefined
      : `no containerd in ${bin}`;
  }

  get runtime(): string {
    return path.join(this.directory, 'gantry-shim');
  }

  get socket(): string {
    return path.join(this.directory, 'c.sock');
  }

  async open(): Promise<void> {
    const { directory } = this;
    writeFileSync(
      this.runtime,
      `#!/bin/sh\nGANTRY_NOFILE=$(ulimit -Sn) GANTRY_SHIM_LINGER_MS=200\nexport GANTRY_NOFILE GANTRY_SHIM_LINGER_MS\nexec ${process.execPath} ${main} "$@"\n`,
    );
    chmodSync(this.runtime, 0o755);
    const off = [
      'io.containerd.grpc.v1.cri',
      'io.containerd.cri.v1.images',
      'io.containerd.cri.v1.runtime',
      'io.containerd.internal.v1.opt',
      'io.containerd.nri.v1.nri',
    ];
    writeFileSync(
      path.join(directory, 'config.toml'),
      `version = 2\nroot = "${directory}/root"\nstate = "${directory}/state"\ndisabled_plugins = ${JSON.stringify(off)}\n[grpc]\naddress = "${this.socket}"\n[ttrpc]\naddress = "${this.socket}.ttrpc"\n`,
    );
    const log = openSync(path.join(directory, 'log'), 'a');
    this.#daemon = spawn(path.join(this.#bin, 'containerd'), ['-c', path.join(directory, 'config.toml')], {
      stdio: ['ignore', log, log],
    });
    for (const end = Date.now() + 10_000; (await this.ctr(['version'])).code !== 0; )
      if (Date.now() > end)
        throw new Error(`containerd does not start: ${readFileSync(path.join(directory, 'log'), 'utf8').slice(-2000)}`);
    if (existsSync(path.join(directory, 'image.tar'))) return;
    const imported = await this.ctr(['images', 'import', this.#makeImage()]);
    if (imported.code !== 0) throw new Error(imported.stderr);
  }

  /** Runs containerd's own ctr. */
  ctr(args: string[], input = ''): Promise<Ran> {
    return new Promise((resolve) => {
      const child = execFile(
        path.join(this.#bin, 'ctr'),
        ['-a', this.socket, ...args],
        {
          timeout: 20_000,
          killSignal: 'SIGKILL',
          maxBuffer: 1 << 26,
          env: { ...process.env, CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS: '1' },
        },
        (error, stdout, stderr) => resolve({ stdout, stderr, code: error ? Number(error.code ?? -1) : 0 }),
      );
      child.stdin?.on('error', () => {});
      // ctr forgets an end of input that comes before its task exists.
      setTimeout(() => child.stdin?.end(input), input === '' ? 0 : 1000);
    });
  }

  #makeImage(): string {
    const rootfs = path.join(this.directory, 'image-rootfs');
    const layout = path.join(this.directory, 'image');
    for (const name of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev'])
      mkdirSync(path.join(rootfs, name), { recursive: true });
    copyFileSync(busybox!, path.join(rootfs, 'bin/busybox'));
    chmodSync(path.join(rootfs, 'bin/busybox'), 0o755);
    for (const applet of ['sh', 'echo', 'sleep', 'cat', 'dd', 'true', 'tty', 'ls'])
      symlinkSync('busybox', path.join(rootfs, 'bin', applet));
    mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
    const put = (mediaType: string, data: Buffer | object) => {
      const bytes = Buffer.isBuffer(data) ? data : Buffer.from(JSON.stringify(data));
      const hex = createHash('sha256').update(bytes).digest('hex');
      writeFileSync(path.join(layout, 'blobs/sha256', hex), bytes);
      return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
    };
    const oci = 'application/vnd.oci.image';
    const layer = put(`${oci}.layer.v1.tar`, execFileSync('tar', ['-C', rootfs, '-c', '.'], { maxBuffer: 1 << 26 }));
    const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
    const config = put(`${oci}.config.v1+json`, {
      architecture,
      os: 'linux',
      config: { Env: ['PATH=/bin'], Cmd: ['sh'] },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    });
    const manifest = put(`${oci}.manifest.v1+json`, {
      schemaVersion: 2,
      mediaType: `${oci}.manifest.v1+json`,
      config,
      layers: [layer],
    });
    writeFileSync(path.join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    writeFileSync(
      path.join(layout, 'index.json'),
      JSON.stringify({
        schemaVersion: 2,
        manifests: [{ ...manifest, annotations: { 'io.containerd.image.name': ContainerdLab.image } }],
      }),
    );
    const archive = path.join(this.directory, 'image.tar');
    execFileSync('tar', ['-C', layout, '-cf', archive, '.']);
    return archive;
  }

  /** Kills the daemon; containers go on, and `open` starts it again. */
  async stop(): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (!daemon || daemon.exitCode !== null) return;
    await new Promise<void>((resolve) => {
      daemon.once('exit', () => resolve());
      daemon.kill('SIGKILL');
    });
  }

  async close(): Promise<void> {
    await this.stop();
    const points = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((point) => point.startsWith(`${this.directory}/`));
    for (const point of points.reverse()) execFileSync('umount', [point]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
