import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  constants,
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
import { Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { jsonAny, packAny, TypeUrl, typeNameOf } from '@gantry/api';
import { Shim } from '@gantry/api/gen/gantry/shim/v1/shim_pb.js';
import { Task } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { Events } from '@gantry/api/gen/services/ttrpc/events/v1/events_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { createClient } from '@gantry/rpc/client.ts';
import type { Client } from '@gantry/rpc/service.ts';
import { type TtrpcTransport, ttrpcTransport } from '@gantry/rpc/ttrpc-client.ts';
import { TtrpcServer } from '@gantry/rpc/ttrpc-server.ts';
import { mkfifo } from '@gantry/sys';
import { lookPath } from '../oci-runtime.ts';

const main = path.join(import.meta.dirname, '../main.ts');
const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((file) => existsSync(file));

/** An event as the daemon of a lab received it. */
export interface SeenEvent {
  namespace: string;
  topic: string;
  event: Any;
}

/** What a test gives a container. */
export interface BundleOptions {
  args: string[];
  terminal?: boolean;
  /** Namespaces that the container does not get: shared with the host. */
  without?: string[];
  annotations?: Record<string, string>;
  /** Default: one of the lab's own. */
  cgroupsPath?: string;
}

/**
 * A place where shims can be tried without a daemon: a directory of its own, a busybox rootfs, a ttrpc server that takes events as a
 * daemon would, and the means to call `start`, `delete` and the task service. `close` removes all of it.
 */
export class ShimLab {
  readonly directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-'));
  readonly namespace = 'lab';
  readonly runtime: string;
  readonly events: SeenEvent[] = [];
  readonly #transports = new Map<string, TtrpcTransport>();
  #server: TtrpcServer | undefined;
  #waiting: (() => void)[] = [];
  #shims = new Set<number>();

  private constructor(runtime: string) {
    this.runtime = runtime;
  }

  /** Why containers cannot be run here with this runtime; undefined if they can. */
  static async unable(runtime: string): Promise<string | undefined> {
    if (process.geteuid?.() !== 0) return 'needs root';
    if (!busybox) return 'needs a static busybox';
    if (!lookPath(runtime)) return `needs ${runtime}`;
    const lab = await ShimLab.open(runtime);
    try {
      const bundle = lab.bundle('probe', { args: ['true'] });
      execFileSync(
        runtime,
        ['--root', path.join(lab.directory, 'probe'), 'run', '--bundle', bundle, `probe-${process.pid}`],
        {
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      );
      return undefined;
    } catch (error) {
      return `${runtime} cannot run containers here: ${(error as Error & { stderr?: Buffer }).stderr?.toString().trim() ?? error}`;
    } finally {
      await lab.close();
    }
  }

  static async open(runtime = 'runc'): Promise<ShimLab> {
    const lab = new ShimLab(runtime);
    const rootfs = lab.rootfs;
    for (const name of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev'])
      mkdirSync(path.join(rootfs, name), { recursive: true });
    copyFileSync(busybox!, path.join(rootfs, 'bin/busybox'));
    chmodSync(path.join(rootfs, 'bin/busybox'), 0o755);
    for (const applet of execFileSync(busybox!, ['--list'], { encoding: 'utf8' }).trim().split('\n'))
      if (applet !== 'busybox') symlinkSync('busybox', path.join(rootfs, 'bin', applet));
    await lab.daemonUp();
    return lab;
  }

  get rootfs(): string {
    return path.join(this.directory, 'rootfs');
  }

  get ttrpcAddress(): string {
    return path.join(this.directory, 'd.ttrpc');
  }

  get socketDir(): string {
    return path.join(this.directory, 's');
  }

  async daemonUp(): Promise<void> {
    this.#server = new TtrpcServer();
    this.#server.add(Events, {
      forward: ({ envelope }) => {
        this.events.push({ namespace: envelope!.namespace, topic: envelope!.topic, event: envelope!.event! });
        for (const wake of this.#waiting.splice(0)) wake();
        return {};
      },
    });
    await this.#server.listenUnix(this.ttrpcAddress);
  }

  async daemonDown(): Promise<void> {
    await this.#server?.close();
  }

  /** The events of a container, waited for until the last one has that topic. */
  async eventsUntil(topic: string, id: string, timeoutMs = 10_000): Promise<SeenEvent[]> {
    const mine = () => this.events.filter((seen) => Buffer.from(seen.event.value).includes(id));
    const deadline = Date.now() + timeoutMs;
    while (!mine().some((seen) => seen.topic === topic)) {
      if (Date.now() > deadline) throw new Error(`no ${topic} of ${id}: ${mine().map((seen) => seen.topic)}`);
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        setTimeout(resolve, 200);
      });
    }
    return mine();
  }

  /** A bundle on disk as the daemon makes one. */
  bundle(id: string, options: BundleOptions): string {
    const bundle = path.join(this.directory, 'bundles', id);
    mkdirSync(path.join(bundle, 'rootfs'), { recursive: true });
    const namespaces = ['pid', 'ipc', 'uts', 'mount'].filter((type) => !options.without?.includes(type));
    const config = {
      ociVersion: '1.0.2',
      process: { ...this.processSpec(options.args), terminal: options.terminal ?? false },
      root: { path: id === 'probe' ? this.rootfs : 'rootfs' },
      hostname: 'lab',
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
        {
          destination: '/dev/pts',
          type: 'devpts',
          source: 'devpts',
          options: ['newinstance', 'ptmxmode=0666', 'mode=0620'],
        },
      ],
      linux: {
        namespaces: namespaces.map((type) => ({ type })),
        cgroupsPath: options.cgroupsPath ?? `/gantry-shim-lab-${process.pid}/${id}`,
        resources: { devices: [{ allow: true, access: 'rwm' }] },
      },
      annotations: options.annotations ?? {},
    };
    writeFileSync(path.join(bundle, 'config.json'), JSON.stringify(config));
    return bundle;
  }

  processSpec(args: string[]): Record<string, unknown> {
    const capabilities = ['CAP_KILL', 'CAP_SETUID', 'CAP_SETGID', 'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER'];
    return {
      user: { uid: 0, gid: 0 },
      args,
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
    };
  }

  execSpec(args: string[], terminal = false): Any {
    return jsonAny(TypeUrl.RuntimeSpecProcess, JSON.stringify({ ...this.processSpec(args), terminal }));
  }

  /** Runtime options with this lab's runtime. */
  get options(): Any {
    return packAny(OptionsSchema, { binaryName: this.runtime, root: path.join(this.directory, 'state') });
  }

  get rootfsMounts() {
    return [{ type: 'bind', source: this.rootfs, options: ['rbind', 'rw'] }];
  }

  /** Calls the shim's command line. @returns what it printed */
  async run(action: string, id: string, env: Record<string, string> = {}, stdin = Buffer.alloc(0)): Promise<Buffer> {
    const bundle = path.join(this.directory, 'bundles', id);
    const child = spawn(
      process.execPath,
      [
        main,
        '-namespace',
        this.namespace,
        '-id',
        id,
        '-address',
        '/none',
        ...(action === 'delete' ? ['-bundle', bundle] : []),
        '-debug',
        action,
      ],
      {
        cwd: existsSync(bundle) ? bundle : this.directory,
        env: {
          ...process.env,
          TTRPC_ADDRESS: this.ttrpcAddress,
          GANTRY_SHIM_SOCKET_DIR: this.socketDir,
          GANTRY_SHIM_LINGER_MS: '100',
          GANTRY_NOFILE: '1024',
          ...env,
        },
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    );
    child.stdin.end(stdin);
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (data: Buffer) => out.push(data));
    child.stderr.on('data', (data: Buffer) => err.push(data));
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    if (code !== 0) throw new Error(`gantry-shim ${action}: ${Buffer.concat(err).toString()}`);
    return Buffer.concat(out);
  }

  /** `start`, and a client of what it started. */
  async start(
    id: string,
    env: Record<string, string> = {},
  ): Promise<{ address: string; task: Client<typeof Task>; shim: Client<typeof Shim>; shimPid: number }> {
    const address = (await this.run('start', id, env)).toString();
    let transport = this.#transports.get(address);
    if (!transport || transport.closed) {
      transport = ttrpcTransport(address, { namespace: this.namespace });
      this.#transports.set(address, transport);
    }
    const task = createClient(Task, transport);
    const { shimPid } = await task.connect({ id });
    this.#shims.add(shimPid);
    return { address, task, shim: createClient(Shim, transport), shimPid };
  }

  /** FIFOs for a process. */
  fifos(id: string): { stdin: string; stdout: string; stderr: string } {
    const directory = path.join(this.directory, 'fifo');
    mkdirSync(directory, { recursive: true });
    const names = { stdin: `${id}-in`, stdout: `${id}-out`, stderr: `${id}-err` };
    for (const [key, name] of Object.entries(names)) {
      names[key as keyof typeof names] = path.join(directory, name);
      mkfifo(path.join(directory, name), 0o700);
    }
    return names;
  }

  /** Everything that comes out of a FIFO until its end. Opened at once. */
  read(fifo: string): Promise<string> {
    const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    // Held until bytes come, because a FIFO that nobody has written to is at its end.
    const holder = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    const socket = new Socket({ fd, readable: true, writable: false });
    const holding = new Socket({ fd: holder, readable: false });
    const chunks: Buffer[] = [];
    this.#holders.set(fifo, holding);
    return new Promise((resolve, reject) => {
      socket.on('data', (data: Buffer) => chunks.push(data));
      socket.on('error', reject);
      socket.on('close', () => resolve(Buffer.concat(chunks).toString()));
    });
  }

  readonly #holders = new Map<string, Socket>();

  /** The process has the FIFOs: readers may see its end now. */
  letGo(): void {
    for (const holder of this.#holders.values()) holder.destroy();
    this.#holders.clear();
  }

  /** The names of the types of events, without their package. */
  static typesOf(events: SeenEvent[]): string[] {
    return events.map((seen) => typeNameOf(seen.event).split('.').at(-1)!);
  }

  async close(): Promise<void> {
    this.letGo();
    for (const transport of this.#transports.values()) await transport.close();
    for (const pid of this.#shims) await ended(pid, 5000);
    await this.daemonDown();
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const point = line.split(' ')[4];
      if (point?.startsWith(`${this.directory}/`)) execFileSync('umount', [point]);
    }
    rmSync(this.directory, { recursive: true, force: true });
    for (const controller of ['', ...controllers()]) {
      const group = path.join('/sys/fs/cgroup', controller, `gantry-shim-lab-${process.pid}`);
      if (existsSync(group)) execFileSync('find', [group, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    }
  }
}

function controllers(): string[] {
  return readFileSync('/proc/self/cgroup', 'utf8')
    .trim()
    .split('\n')
    .flatMap((line) => [line.split(':')[1]!.replace('name=', '') || 'unified', ...line.split(':')[1]!.split(',')]);
}

/** Waits for a process that is not our child; one that stays is killed, and that is an error. */
export async function ended(pid: number, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) {
    if (Date.now() > deadline) {
      process.kill(pid, 'SIGKILL');
      throw new Error(`process ${pid} stays`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
