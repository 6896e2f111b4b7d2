export * from './adjustment.ts';
export * from './events.ts';
export * from './plugin.ts';
export * from './plugin-name.ts';
export * from './plugin-options.ts';
export * from './resources.ts';
export * from './types.ts';
