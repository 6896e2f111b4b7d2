export { BoltFile } from './bolt/bolt-file.ts';
export type { BoltBucket, BoltEntry } from './bolt/bucket.ts';
export { readMetadata } from './containerd/metadata.ts';
export type * from './containerd/records.ts';
export { readSnapshotterMetadata, type StoredSnapshot } from './containerd/snapshotter-metadata.ts';
export { reportText } from './report.ts';
export { type FoundTask, type Survey, type SurveyOptions, survey } from './survey.ts';
