import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RuntimeSpec, SpecMount } from '@gantry/oci';
import { pauseProgram } from './pause-program.ts';

const mounts: SpecMount[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=64k'] },
];

/** A sandbox's spec with a process that does nothing, in a root directory that has nothing but its program. */
export function withPauseProcess(spec: RuntimeSpec, bundle: string): RuntimeSpec {
  const root = path.join(bundle, 'pause');
  mkdirSync(root, { recursive: true, mode: 0o711 });
  writeFileSync(path.join(root, 'pause'), pauseProgram(), { mode: 0o555 });
  // Whatever the umask is: it may run as another user.
  chmodSync(path.join(root, 'pause'), 0o555);
  chmodSync(root, 0o755);
  return {
    ...spec,
    process: {
      user: { uid: 0, gid: 0 },
      noNewPrivileges: true,
      ...spec.process,
      cwd: '/',
      args: ['/pause'],
    },
    root: { path: root, readonly: true },
    mounts,
    linux: {
      ...spec.linux,
      namespaces: withMountNamespace(spec.linux?.namespaces ?? []),
    },
  };
}

function withMountNamespace(namespaces: NonNullable<NonNullable<RuntimeSpec['linux']>['namespaces']>) {
  return namespaces.some(({ type }) => type === 'mount') ? namespaces : [...namespaces, { type: 'mount' as const }];
}
