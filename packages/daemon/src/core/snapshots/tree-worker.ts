// The thread that measures, copies and deletes snapshot directories.
import { removeAllBeneath } from '@gantry/mount';
import { serveJobs } from '../workers/worker-jobs.ts';
import { copyTree } from './tree-copy.ts';
import { diskUsage } from './tree-walk.ts';

serveJobs({
  usage: ({ path }: { path: string }) => diskUsage(path),
  copy: ({ from, to }: { from: string; to: string }) => copyTree(from, to),
  remove: ({ path }: { path: string }) => removeAllBeneath(path),
});
