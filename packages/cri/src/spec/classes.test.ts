import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RdtClasses } from '@gantry/daemon/core/resource-classes/rdt-classes.ts';
import type { RuntimeSpec } from '@gantry/oci';
import { applyClasses, applyNamedClass, type ClassRules } from './classes.ts';

const settings = (more: object = {}): ClassRules['settings'] => ({
  default_runtime_name: 'runc',
  ignore_blockio_not_enabled_errors: false,
  ignore_rdt_not_enabled_errors: false,
  runtimes: {},
  ...more,
});
const classes = { blockio: new Map([['slow', { weight: 80 }]]) };
const made = (container: Record<string, string>, pod: Record<string, string>, rules: ClassRules): RuntimeSpec => {
  const spec = { ociVersion: '1.0' } as RuntimeSpec;
  applyClasses(spec, 'main', container, pod, rules);
  return spec;
};

test('a container has its own class, or its pod’s for it, or its pod’s for all', () => {
  const rules = { classes, settings: settings() };
  const pod = { 'blockio.resources.beta.kubernetes.io/pod': 'no' };
  const forIt = { ...pod, 'blockio.resources.beta.kubernetes.io/container.main': 'slow' };
  assert.deepEqual(made({}, forIt, rules).linux?.resources?.blockIO, { weight: 80 });
  const own = made({ 'io.kubernetes.cri.blockio-class': 'slow' }, pod, rules);
  assert.deepEqual(own.linux?.resources?.blockIO, { weight: 80 });
  assert.throws(() => made({}, pod, rules), /failed to set blockio class: no OCI BlockIO parameters for class "no"/);
  assert.equal(made({ 'io.kubernetes.cri.blockio-class': '' }, pod, rules).linux, undefined);
  applyNamedClass('blockio', own, '', rules);
  assert.equal(own.linux?.resources?.blockIO, undefined);
});

test('where classes are not enabled they are refused in containerd’s words, or let be', () => {
  const off = { classes: {}, settings: settings() };
  const io = { 'io.kubernetes.cri.blockio-class': 'slow' };
  const cache = { 'io.kubernetes.cri.rdt-class': 'gold' };
  assert.throws(
    () => made(io, {}, off),
    /failed to set blockio class: blockio disabled, refusing to set blockio class of container "main" to "slow"/,
  );
  assert.throws(() => made(cache, {}, off), /failed to set RDT class: RDT not initialized, class "gold" not available/);
  const lenient = {
    classes: {},
    settings: settings({ ignore_blockio_not_enabled_errors: true, ignore_rdt_not_enabled_errors: true }),
  };
  assert.equal(made({ ...io, ...cache }, {}, lenient).linux, undefined);
  assert.throws(
    () => made(cache, {}, { classes: { rdt: new RdtClasses('/nowhere', new Map()) }, settings: settings() }),
    /failed to set RDT class: RDT class not found/,
  );
});
