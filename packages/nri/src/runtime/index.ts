export * from './apply-adjustment.ts';
export * from './from-spec.ts';
export * from './nri-events.ts';
export * from './nri-host.ts';
export * from './spec-resources.ts';
