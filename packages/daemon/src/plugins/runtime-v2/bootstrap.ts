import { invalidArgument } from '@gantry/api';

/** Where a shim listens and how to speak to it: what its `start` prints, and what `bootstrap.json` keeps. */
export interface Bootstrap {
  /** Version of the task API: 2 or 3. */
  version: number;
  /** `unix:///path`, or `vsock://`-like for others. */
  address: string;
  protocol: 'ttrpc' | 'grpc';
}

/** Reads what a shim's `start` printed: JSON, or (before containerd 1.7) the bare address. */
export function parseBootstrap(output: string): Bootstrap {
  const text = output.trim();
  if (text === '') throw invalidArgument('shim start printed no address');
  if (!text.startsWith('{')) return { version: 2, address: text, protocol: 'ttrpc' };
  let parsed: { version?: unknown; address?: unknown; protocol?: unknown };
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw invalidArgument(`shim start printed bad bootstrap parameters: ${text.slice(0, 200)}`, cause);
  }
  const version = parsed.version === undefined ? 2 : Number(parsed.version);
  const protocol = String(parsed.protocol ?? 'ttrpc').toLowerCase();
  if (typeof parsed.address !== 'string' || parsed.address === '')
    throw invalidArgument('shim start printed no address');
  if (version !== 2 && version !== 3) throw invalidArgument(`unsupported shim task API version ${version}`);
  if (protocol !== 'ttrpc' && protocol !== 'grpc') throw invalidArgument(`unsupported shim protocol "${protocol}"`);
  return { version, address: parsed.address, protocol };
}

export function formatBootstrap(bootstrap: Bootstrap): string {
  return JSON.stringify({ version: bootstrap.version, address: bootstrap.address, protocol: bootstrap.protocol });
}
