import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deprecatedSettings } from './deprecated-settings.ts';

const images = 'io.containerd.cri.v1.images';
const runtime = 'io.containerd.cri.v1.runtime';

test('deprecated settings are found where they say something', () => {
  const names = (config: Record<string, unknown>) => deprecatedSettings(config).map(({ name }) => name);
  const found = names({
    plugins: {
      [images]: { registry: { mirrors: { 'docker.io': {} }, auths: { x: {} }, configs: { y: {} }, config_path: '' } },
      [runtime]: { enable_cdi: false, cni: { bin_dir: '/opt/cni/bin' } },
      'io.containerd.tracing.processor.v1.otlp': { endpoint: 'http://localhost:4318' },
      'io.containerd.internal.v1.tracing': { service_name: 'containerd' },
    },
  });
  assert.deepEqual(found, [
    'cri-registry-mirrors',
    'cri-registry-auths',
    'cri-registry-configs',
    'cri-cni-bin-dir',
    'enable-cdi',
    'tracing-processor-config',
    'tracing-service-config',
  ]);
});

test('the defaults, written out, are none', () => {
  const config = {
    plugins: {
      [images]: { registry: { config_path: '', mirrors: {} } },
      [runtime]: { enable_cdi: true, cni: { bin_dir: '', bin_dirs: ['/opt/cni/bin'] } },
      'io.containerd.internal.v1.tracing': {},
    },
  };
  assert.deepEqual(deprecatedSettings(config), []);
  assert.deepEqual(deprecatedSettings({}), []);
});
