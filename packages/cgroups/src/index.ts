export * from './cgroups.ts';
export * from './expect-move.ts';
export { type Roots, unlimited } from './files.ts';
export * from './group.ts';
export * from './mode.ts';
export * from './remove-empty.ts';
export * from './systemd.ts';
export { LegacyCgroup } from './v1/group.ts';
export { UnifiedCgroup } from './v2/group.ts';
