// The thread that walks and copies snapshot directories.
import { serveJobs } from '../workers/worker-jobs.ts';
import { diskUsage } from './tree-walk.ts';

serveJobs({
  usage: ({ path }: { path: string }) => diskUsage(path),
});
