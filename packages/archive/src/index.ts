export type { ApplyLayerParams, ApplyLayerProgress, ApplyLayerResult } from './apply-layer.ts';
export { type ByteSource, type GrowthMessage, pumpToPort } from './byte-source.ts';
export { type Compression, detectCompression } from './compression.ts';
export { JobError } from './job.ts';
export type { ApplyTarget } from './layer-applier.ts';
export { isReadableLayer, LayerMediaType, layerCompression } from './media-types.ts';
export { archivePool, type RunningJob, type RunOptions, WorkerPool, type WorkerPoolOptions } from './worker-pool.ts';
