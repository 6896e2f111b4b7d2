import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { RestartBackoff } from './restart-backoff.ts';
import { parseRestartPolicy, shouldRestart } from './restart-policy.ts';

const labels = (policy: string, extra: Record<string, string> = {}) => ({
  'containerd.io/restart.policy': policy,
  ...extra,
});

describe('restart policy', () => {
  it('is read as containerd reads it', () => {
    assert.deepEqual(parseRestartPolicy(''), { name: 'always', maximumRetries: 0 });
    assert.deepEqual(parseRestartPolicy('on-failure:3'), { name: 'on-failure', maximumRetries: 3 });
    for (const bad of ['sometimes', 'always:3', 'no:1', 'on-failure:x']) {
      assert.throws(
        () => parseRestartPolicy(bad),
        (error) => hasCode(error, Code.InvalidArgument),
        bad,
      );
    }
  });

  it('decides by exit status, count and whether somebody stopped it', () => {
    assert.equal(shouldRestart({}, 0), true);
    assert.equal(shouldRestart(labels('no'), 1), false);
    assert.equal(shouldRestart(labels('on-failure'), 0), false);
    assert.equal(shouldRestart(labels('on-failure'), 1), true);
    assert.equal(shouldRestart(labels('on-failure'), undefined), false);
    const counted = (count: string) => labels('on-failure:2', { 'containerd.io/restart.count': count });
    assert.equal(shouldRestart(counted('1'), 1), true);
    assert.equal(shouldRestart(counted('2'), 1), false);
    assert.throws(() => shouldRestart(counted('two'), 1), /invalid restart count/);
    const stopped = { 'containerd.io/restart.explicitly-stopped': 'true' };
    assert.equal(shouldRestart(labels('unless-stopped', stopped), 0), false);
    assert.equal(shouldRestart(labels('unless-stopped'), 0), true);
  });
});

describe('restart back-off', () => {
  it('doubles up to the maximum, and starts anew after a good run', () => {
    const backoff = new RestartBackoff(10, 40);
    let now = 0;
    const waits: number[] = [];
    for (let round = 0; round < 5; round++) {
      const from = now;
      while (!backoff.ready('a', now)) now += 5;
      waits.push(now - from);
      backoff.started('a', now);
    }
    assert.deepEqual(waits, [0, 10, 20, 40, 40]);
    now += 81;
    backoff.started('a', now);
    assert.equal(backoff.ready('a', now + 10), true);
    backoff.keep(new Set());
    assert.equal(backoff.ready('a', now), true);
  });

  it('has no waits when it is switched off', () => {
    const backoff = new RestartBackoff(10, 0);
    backoff.started('a', 5);
    assert.equal(backoff.ready('a', 5), true);
  });
});
