export * from './any.ts';
export * from './code.ts';
export * from './descriptor-store.ts';
export * from './log-line.ts';
export * from './status-error.ts';
export * from './time.ts';
export * from './tracing.ts';
export * from './type-urls.ts';
