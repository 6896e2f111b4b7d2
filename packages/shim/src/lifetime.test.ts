import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Lifetime } from './lifetime.ts';

function setUp() {
  mock.timers.enable({ apis: ['setTimeout'] });
  const state = { containers: 0, ended: 0 };
  const lifetime = new Lifetime({
    containers: () => state.containers,
    lingerMs: 100,
    reservationMs: 1000,
    onEnd: () => state.ended++,
  });
  return { state, lifetime };
}

test('it ends some time after a shutdown, unless somebody comes', (t) => {
  t.after(() => mock.timers.reset());
  const { state, lifetime } = setUp();
  lifetime.connected();
  lifetime.shutdown(false);
  mock.timers.tick(50);
  assert.equal(lifetime.reserve('n', 'a'), true);
  mock.timers.tick(500);
  assert.equal(state.ended, 0);
  lifetime.release('n', 'a');
  mock.timers.tick(99);
  assert.equal(state.ended, 0);
  mock.timers.tick(1);
  assert.equal(state.ended, 1);
  assert.equal(lifetime.reserve('n', 'b'), false);
});

test('a container or an open connection keeps it', (t) => {
  t.after(() => mock.timers.reset());
  const { state, lifetime } = setUp();
  state.containers = 1;
  lifetime.connected();
  lifetime.shutdown(true);
  mock.timers.tick(10_000);
  assert.equal(state.ended, 0);
  state.containers = 0;
  lifetime.connected();
  mock.timers.tick(10_000);
  assert.equal(state.ended, 0);
  lifetime.disconnected();
  lifetime.disconnected();
  mock.timers.tick(100);
  assert.equal(state.ended, 1);
});

test('a place that is not taken is given up', (t) => {
  t.after(() => mock.timers.reset());
  const { state, lifetime } = setUp();
  lifetime.reserve('n', 'a');
  mock.timers.tick(1000);
  mock.timers.tick(100);
  assert.equal(state.ended, 1);
});

test('with now it does not linger', (t) => {
  t.after(() => mock.timers.reset());
  const { state, lifetime } = setUp();
  lifetime.connected();
  lifetime.shutdown(true);
  mock.timers.tick(20);
  assert.equal(state.ended, 1);
});
