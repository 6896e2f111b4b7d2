import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { contextOf } from '../request-context.ts';
import type { SandboxController } from './sandbox-controller.ts';
import type { SandboxInput } from './sandbox-store.ts';

/** How the contract gets at an implementation. */
export interface SandboxControllerUnderTest {
  controller: SandboxController;
  /** A sandbox that it can run. */
  sandbox(id: string): SandboxInput;
  /** As containerd's `shim`, it takes one that is not there for one that has ended: stopped already, and in no state. */
  forgiving?: boolean;
  close(): Promise<void>;
}

const withCode = (code: Code) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  return true;
};
const ctx = contextOf('sandboxes');

/** What every SandboxController has to do. */
export function sandboxControllerContract(name: string, open: () => Promise<SandboxControllerUnderTest>): void {
  describe(`sandbox controller contract: ${name}`, () => {
    let under: SandboxControllerUnderTest;
    let controller: SandboxController;

    beforeEach(async () => {
      under = await open();
      controller = under.controller;
    });
    afterEach(() => under.close());

    const started = async (id: string) => {
      await controller.create(ctx, under.sandbox(id));
      return controller.start(ctx, id);
    };

    async function assertMissing(where: typeof ctx, id: string): Promise<void> {
      if (!under.forgiving) await assert.rejects(controller.status(where, id), withCode(Code.NotFound));
      else assert.deepEqual((await controller.status(where, id)).state, '');
    }

    it('runs a sandbox from its creation to its shutdown', async () => {
      const instance = await started('one');
      assert.equal(instance.id, 'one');
      assert.ok(instance.createdAt.seconds > 1_500_000_000n);
      const ready = await controller.status(ctx, 'one');
      assert.deepEqual([ready.id, ready.state, ready.pid], ['one', 'SANDBOX_READY', instance.pid]);
      assert.deepEqual([ready.address, ready.version], [instance.address, instance.version]);
      assert.equal((await controller.platform(ctx, 'one')).os, 'linux');
      const waiting = Promise.all([controller.wait(ctx, 'one'), controller.wait(ctx, 'one')]);
      await controller.stop(ctx, 'one', 5);
      const [first, second] = await waiting;
      assert.deepEqual(first, second);
      assert.ok(first.exitedAt.seconds >= instance.createdAt.seconds);
      assert.deepEqual(await controller.wait(ctx, 'one'), first);
      const ended = await controller.status(ctx, 'one');
      assert.deepEqual([ended.state, ended.exitedAt], ['SANDBOX_NOTREADY', first.exitedAt]);
      await controller.stop(ctx, 'one');
      await controller.shutdown(ctx, 'one');
      await assertMissing(ctx, 'one');
      await started('one');
      await controller.shutdown(ctx, 'one');
    });

    it('tells more only to those who ask', async () => {
      await started('verbose');
      assert.deepEqual((await controller.status(ctx, 'verbose')).info, {});
      assert.ok(Object.keys((await controller.status(ctx, 'verbose', true)).info).length > 0);
      await controller.shutdown(ctx, 'verbose');
    });

    it('takes changes, and measures', async () => {
      await started('measured');
      await controller.update(ctx, 'measured', { ...under.sandbox('measured'), labels: { new: 'label' } }, ['labels']);
      assert.equal((await controller.metrics(ctx, 'measured')).id, 'measured');
      await controller.shutdown(ctx, 'measured');
    });

    it('says what is taken and what is not there', async () => {
      await controller.create(ctx, under.sandbox('taken'));
      await assert.rejects(controller.create(ctx, under.sandbox('taken')), withCode(Code.AlreadyExists));
      await controller.shutdown(ctx, 'taken');
      const missing = withCode(Code.NotFound);
      await assert.rejects(controller.start(ctx, 'none'), missing);
      await assert.rejects(controller.platform(ctx, 'none'), missing);
      if (under.forgiving) await controller.stop(ctx, 'none');
      else await assert.rejects(controller.stop(ctx, 'none'), missing);
      await assert.rejects(controller.wait(ctx, 'none'), missing);
      await assertMissing(ctx, 'none');
      await assert.rejects(controller.metrics(ctx, 'none'), missing);
      await assert.rejects(controller.update(ctx, 'none', under.sandbox('none'), []), missing);
    });

    it('keeps namespaces apart', async () => {
      const other = contextOf('others');
      await started('same');
      await assertMissing(other, 'same');
      await controller.create(other, under.sandbox('same'));
      await controller.shutdown(ctx, 'same');
      assert.equal((await controller.status(other, 'same')).id, 'same');
      await controller.shutdown(other, 'same');
    });

    it('stops waiting when the caller gives up', async () => {
      await started('long');
      const abort = new AbortController();
      const waiting = controller.wait({ ...ctx, signal: abort.signal }, 'long');
      abort.abort();
      await assert.rejects(waiting);
      assert.equal((await controller.status(ctx, 'long')).state, 'SANDBOX_READY');
      await controller.shutdown(ctx, 'long');
    });
  });
}
