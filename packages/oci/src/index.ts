export * from './descriptor.ts';
export * from './digest.ts';
export * from './image.ts';
export * from './json-codec.ts';
export * from './platforms.ts';
export * from './references.ts';
