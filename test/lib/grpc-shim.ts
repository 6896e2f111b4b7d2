// A shim that serves its task and sandbox API over gRPC: a process in front of the real shim named by REAL_SHIM, which answers over ttrpc.
// It prints its address as JSON. Everything else (delete, -info) is the real one's.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Sandbox } from '@gantry/api/gen/runtime/sandbox/v1/sandbox_pb.js';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { type CallContext, type CallOptions, createClient, GrpcServer, ttrpcTransport } from '@gantry/rpc';
import { type Bootstrap, parseBootstrap } from '../../packages/daemon/src/plugins/runtime-v2/bootstrap.ts';

const real = process.env['REAL_SHIM']!;
const args = process.argv.slice(2);

if (args[0] === 'serve') await serve(parseBootstrap(args[1]!), args[2]!);
else if (args.at(-1) === 'start') await start();
else process.exitCode = spawnSync(real, args, { stdio: 'inherit' }).status ?? 1;

async function start(): Promise<void> {
  const { status, stdout } = spawnSync(real, args, { input: readFileSync(0), stdio: ['pipe', 'pipe', 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
  const bootstrap = parseBootstrap(stdout);
  const socket = `${bootstrap.address.replace('unix://', '')}.g`;
  const server = spawn(process.execPath, [process.argv[1]!, 'serve', JSON.stringify(bootstrap), socket], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  // It says that it serves, or that another one of the group does, and ends its output.
  server.stdout.resume().once('end', () => {
    server.unref();
    console.log(JSON.stringify({ version: bootstrap.version, address: `unix://${socket}`, protocol: 'grpc' }));
  });
}

async function serve({ version, address }: Bootstrap, socket: string): Promise<void> {
  const transport = ttrpcTransport(address);
  await transport.ready();
  const server = new GrpcServer();
  for (const service of [version === 2 ? TaskV2 : TaskV3, Sandbox]) {
    const client = createClient(service as typeof Sandbox, transport) as unknown as Record<string, Forward>;
    const forwards = Object.keys(service.method).map((name) => [
      name,
      (request: unknown, { namespace, signal }: CallContext) =>
        client[name]!(request, { signal, ...(namespace !== undefined && { namespace }) }),
    ]);
    server.add(service as typeof Sandbox, Object.fromEntries(forwards));
  }
  await server.listenUnix(socket);
  // What is in front of it ends with the shim, in the manner of one that crashes.
  transport.onClose(() => process.exit());
  // A pipe that is open would keep the starter waiting.
  process.stdout.destroy();
  const { closeSync } = await import('node:fs');
  closeSync(1);
}

type Forward = (request: unknown, options: CallOptions) => Promise<object>;
