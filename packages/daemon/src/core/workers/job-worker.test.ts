import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Code, hasCode } from '@gantry/api';
import { JobWorker } from './job-worker.ts';

describe('job worker', () => {
  let dir: string;
  let worker: JobWorker;

  before(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'gantry-jobs-'));
    const jobs = new URL('./worker-jobs.ts', import.meta.url).href;
    const file = path.join(dir, 'worker.mjs');
    await writeFile(
      file,
      `import { readFileSync } from 'node:fs';
       import { serveJobs } from ${JSON.stringify(jobs)};
       serveJobs({
         double: (n) => n * 2,
         later: async (n) => n * 3,
         read: (path) => readFileSync(path),
         die: () => process.exit(3),
       });`,
    );
    worker = new JobWorker(pathToFileURL(file), 'test');
  });
  after(async () => {
    await worker.close();
    await rm(dir, { recursive: true });
  });

  it('answers jobs, also several at a time', async () => {
    const answers = await Promise.all([worker.run('double', 2), worker.run('later', 2), worker.run('double', 5)]);
    assert.deepEqual(answers, [4, 6, 10]);
    assert.equal(worker.load, 0);
  });

  it('carries errors with their code and errno', async () => {
    await assert.rejects(worker.run('nope', 1), (reason) => hasCode(reason, Code.Unimplemented));
    await assert.rejects(worker.run('read', '/nonexistent/x'), { errno: 'ENOENT', message: /no such file/ });
  });

  it('is there when the job comes, if it was told before', async () => {
    await worker.close();
    worker.warm();
    const { generation } = worker;
    worker.warm();
    assert.equal(await worker.run('double', 4), 8);
    assert.equal(worker.generation, generation);
  });

  it('fails what a dying thread had, and starts another', async () => {
    await worker.run('double', 1);
    const { generation } = worker;
    const results = await Promise.allSettled([worker.run('die', 0), worker.run('double', 1)]);
    for (const result of results) {
      assert.ok(result.status === 'rejected' && hasCode(result.reason, Code.Unavailable));
    }
    assert.notEqual(worker.generation, generation);
    assert.equal(await worker.run('double', 21), 42);
  });
});
