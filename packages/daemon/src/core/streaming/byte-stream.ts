// Shims send and receive bytes in the same way.
export * from '@gantry/rpc/byte-stream.ts';
