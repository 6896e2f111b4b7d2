import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, FixedMetric, Gauge, Histogram, MetricsRegistry } from './metrics-registry.ts';

test('metrics are written in the text format of Prometheus', async () => {
  const registry = new MetricsRegistry();
  const calls = registry.register(new Counter('calls_total', 'Calls.'));
  registry.register(new Gauge('age_seconds', 'Age.', () => 1.5));
  const spans = registry.register(new Histogram('span_seconds', 'Spans.', [0.1, 1]));
  registry.register(new Counter('never_total', 'Nothing to show.'));
  calls.add({ method: 'Get"\n' });
  calls.add({ method: 'Get"\n' }, 2);
  for (const value of [0.05, 0.5, 5]) spans.observe({ m: 'x' }, value);
  assert.equal(
    await registry.render(),
    [
      '# HELP age_seconds Age.',
      '# TYPE age_seconds gauge',
      'age_seconds 1.5',
      '# HELP calls_total Calls.',
      '# TYPE calls_total counter',
      'calls_total{method="Get\\"\\n"} 3',
      '# HELP span_seconds Spans.',
      '# TYPE span_seconds histogram',
      'span_seconds_bucket{m="x",le="0.1"} 1',
      'span_seconds_bucket{m="x",le="1"} 2',
      'span_seconds_bucket{m="x",le="+Inf"} 3',
      'span_seconds_sum{m="x"} 5.55',
      'span_seconds_count{m="x"} 3',
      '',
    ].join('\n'),
  );
});

test('metrics that have to be asked for are asked each time', async () => {
  const registry = new MetricsRegistry();
  let round = 0;
  registry.collect(async () => {
    const metric = new FixedMetric('asked', 'Asked.');
    metric.add({ a: 'b' }, ++round);
    return [metric];
  });
  registry.collect(async () => {
    throw new Error('away');
  });
  await registry.render();
  assert.equal(await registry.render(), '# HELP asked Asked.\n# TYPE asked gauge\nasked{a="b"} 2\n');
});
