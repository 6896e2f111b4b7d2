// The thread that measures, copies and deletes snapshot directories.
import { removeAllBeneath } from '@gantry/mount';
import { serveJobs } from '../workers/worker-jobs.ts';
import { copyBlocks } from './block-copy.ts';
import { copyTree } from './tree-copy.ts';
import { changedUsage, diskUsage } from './tree-walk.ts';

serveJobs({
  usage: ({ path }: { path: string }) => diskUsage(path),
  changedUsage: ({ path, parent }: { path: string; parent: string }) => changedUsage(path, parent),
  copyBlocks: ({ from, to }: { from: string; to: string }) => copyBlocks(from, to),
  copy: ({ from, to }: { from: string; to: string }) => copyTree(from, to),
  empty: ({ path }: { path: string }) => removeAllBeneath(path, { keep: true }),
  remove: ({ path }: { path: string }) => removeAllBeneath(path),
});
