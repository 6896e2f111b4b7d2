import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '@gantry/api';
import { ROOT_CONTEXT, SpanKind } from '@opentelemetry/api';
import { SamplingDecision } from '@opentelemetry/sdk-trace';
import { samplerOf } from './sampler.ts';
import { tracingSettings } from './settings.ts';

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4318' };

test('nothing is traced without an endpoint, or when the SDK is disabled', () => {
  assert.deepEqual(tracingSettings({}), { off: 'tracing endpoint not configured' });
  assert.deepEqual(tracingSettings({ ...endpoint, OTEL_SDK_DISABLED: 'true' }), {
    off: 'tracing disabled by env OTEL_SDK_DISABLED=true',
  });
  assert.throws(() => tracingSettings({ ...endpoint, OTEL_SDK_DISABLED: 'maybe' }), { code: Code.InvalidArgument });
});

test('the protocol is http/protobuf unless said otherwise; those of traces win', () => {
  assert.deepEqual(tracingSettings(endpoint), { protocol: 'http/protobuf' });
  assert.deepEqual(tracingSettings({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://x:1' }), {
    protocol: 'http/protobuf',
  });
  const both = { OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc' };
  assert.deepEqual(tracingSettings({ ...endpoint, ...both }), { protocol: 'grpc' });
  assert.throws(() => tracingSettings({ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' }), {
    code: Code.Unimplemented,
    message: 'OpenTelemetry protocol "http/json": not implemented',
  });
  assert.throws(() => tracingSettings({ ...endpoint, OTEL_TRACES_EXPORTER: 'zipkin' }), { code: Code.InvalidArgument });
});

test('samplers, with those by name of the span', () => {
  const warnings: string[] = [];
  const keeps = (variables: Record<string, string>, name = 'a', traceId = '0'.repeat(32)): boolean =>
    samplerOf(variables, (text) => warnings.push(text)).shouldSample(
      ROOT_CONTEXT,
      traceId,
      name,
      SpanKind.SERVER,
      {},
      [],
    ).decision === SamplingDecision.RECORD_AND_SAMPLED;
  assert.equal(keeps({}), true);
  assert.equal(keeps({ OTEL_TRACES_SAMPLER: 'always_off' }), false);
  assert.equal(keeps({ OTEL_TRACES_SAMPLER: 'parentbased_always_off' }), false);
  const tenth = { OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.1' };
  assert.equal(keeps(tenth, 'a', '0'.repeat(31).concat('1')), true);
  assert.equal(keeps(tenth, 'a', `${'0'.repeat(24)}${'f'.repeat(8)}`), false);
  const byName = { OTEL_TRACES_SAMPLER: 'parentbased_name', OTEL_TRACES_SAMPLER_ARG: 'a, b' };
  assert.deepEqual([keeps(byName, 'a'), keeps(byName, 'b'), keeps(byName, 'c')], [true, true, false]);
  assert.deepEqual(warnings, []);
  assert.equal(keeps({ OTEL_TRACES_SAMPLER: 'some_day' }), true);
  assert.equal(keeps({ OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '7' }), true);
  assert.equal(warnings.length, 2);
});
