// Whether this process is traced, and to where: OpenTelemetry's standard variables, read as containerd reads them.
import { invalidArgument, unimplemented } from '@gantry/api';

export interface TracingSettings {
  /** How spans are sent. Where to, with which headers, certificates and time-outs is read by the exporter itself. */
  readonly protocol: 'http/protobuf' | 'grpc';
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Go's spellings of a truth value, as containerd takes them. */
const booleans = new Map<string, boolean>([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((text) => [text, true] as const),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((text) => [text, false] as const),
]);

/**
 * What the environment asks for, or the reason why nothing is traced.
 * @throws StatusError InvalidArgument or Unimplemented for what is asked for wrongly
 */
export function tracingSettings(environment: Environment): TracingSettings | { readonly off: string } {
  const disabled = environment['OTEL_SDK_DISABLED'] ?? '';
  if (disabled !== '') {
    const value = booleans.get(disabled);
    if (value === undefined)
      throw invalidArgument(`invalid value for OTEL_SDK_DISABLED: ${JSON.stringify(disabled)}: invalid argument`);
    if (value) return { off: `tracing disabled by env OTEL_SDK_DISABLED=${disabled}` };
  }
  if (!environment['OTEL_EXPORTER_OTLP_ENDPOINT'] && !environment['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'])
    return { off: 'tracing endpoint not configured' };
  const exporter = environment['OTEL_TRACES_EXPORTER'] ?? '';
  if (exporter !== '' && exporter !== 'otlp')
    throw invalidArgument(`unsupported traces exporter ${JSON.stringify(exporter)}: invalid argument`);
  const protocol =
    environment['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'] || environment['OTEL_EXPORTER_OTLP_PROTOCOL'] || 'http/protobuf';
  if (protocol !== 'http/protobuf' && protocol !== 'grpc')
    throw unimplemented(`OpenTelemetry protocol ${JSON.stringify(protocol)}: not implemented`);
  return { protocol };
}
