// Small on purpose: what loads the OpenTelemetry SDK is imported when traces are asked for.
export { type TracingSettings, tracingSettings } from './settings.ts';
