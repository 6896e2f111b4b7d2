// Which traces are kept: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, with containerd's two samplers by name of the span.
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';

/** Keeps spans of these names alone. */
function nameBased(names: readonly string[]): Sampler {
  const kept = new Set(names);
  return {
    shouldSample: (_context, _traceId, name) => ({
      decision: kept.has(name) ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD,
    }),
    toString: () => `NameBased{${[...kept].join(',')}}`,
  };
}

/** The sampler that the environment asks for; what it cannot mean is told of, and all is kept. */
export function samplerOf(
  environment: Readonly<Record<string, string | undefined>>,
  warn: (message: string) => void,
): Sampler {
  const name = (environment['OTEL_TRACES_SAMPLER'] ?? '').trim().toLowerCase();
  const argument = (environment['OTEL_TRACES_SAMPLER_ARG'] ?? '').trim();
  const parentBased = (root: Sampler): Sampler => new ParentBasedSampler({ root });
  const ratio = (): Sampler => {
    const value = argument === '' ? 1 : Number(argument);
    if (value >= 0 && value <= 1) return new TraceIdRatioBasedSampler(value);
    warn(`OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, got ${JSON.stringify(argument)}`);
    return new AlwaysOnSampler();
  };
  const names = (): string[] => argument.split(',').map((text) => text.trim());
  switch (name) {
    case 'always_on':
      return new AlwaysOnSampler();
    case 'always_off':
      return new AlwaysOffSampler();
    case 'traceidratio':
      return ratio();
    case 'parentbased_traceidratio':
      return parentBased(ratio());
    case 'parentbased_always_off':
      return parentBased(new AlwaysOffSampler());
    case 'namebased':
      return nameBased(names());
    case 'parentbased_name':
      return parentBased(nameBased(names()));
    case '':
    case 'parentbased_always_on':
      return parentBased(new AlwaysOnSampler());
    default:
      warn(`OTEL_TRACES_SAMPLER: unknown sampler ${JSON.stringify(name)}`);
      return parentBased(new AlwaysOnSampler());
  }
}
