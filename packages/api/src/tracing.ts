// What a trace looks like to the code that is traced. Nothing here does anything until `setTracing` is called, so that a process
// that is not traced loads nothing and pays one comparison for each span that is not made.

/** What a span may be described with, beside its name. */
export type SpanAttributes = Readonly<Record<string, string | number | boolean>>;

/** As OpenTelemetry has them: who is asked, who asks, and what happens within. */
export type SpanKind = 'internal' | 'server' | 'client';

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: SpanAttributes;
  /** Headers of the call that this answers: the span continues the trace that they name. Else: the current one. */
  readonly caller?: ReadonlyMap<string, readonly string[]>;
  /** Begins a trace of its own, whatever goes on around it. */
  readonly root?: boolean;
}

/** A step that is being traced. */
export interface Span {
  set(name: string, value: string | number | boolean): void;
  event(name: string, attributes?: SpanAttributes): void;
  /** Marks it as failed. */
  fail(message: string): void;
  end(): void;
  /** Headers by which the next process continues the trace below this span. */
  headers(): Record<string, string>;
}

/** Where an asynchronous flow is within a trace: in lower-case hexadecimal digits. */
export interface TraceIds {
  readonly traceId: string;
  readonly spanId: string;
}

/** What makes spans. */
export interface Tracing {
  start(name: string, options: SpanOptions): Span;
  /** Runs a function, and whatever it begins, below a span. */
  within<T>(span: Span, fn: () => T): T;
  /** The span of the current flow. */
  current(): Span | undefined;
  /** Its ids. */
  ids(): TraceIds | undefined;
}

let active: Tracing | undefined;

/** Switches tracing on for this process, or off. */
export function setTracing(tracing: Tracing | undefined): void {
  active = tracing;
}

/** What makes spans, if anything does. */
export function tracing(): Tracing | undefined {
  return active;
}

/** Runs a step inside a span, which ends with the step's promise and fails with it. Without tracing: just runs it. */
export function traced<T>(
  name: string,
  options: SpanOptions,
  step: (span: Span | undefined) => Promise<T>,
): Promise<T> {
  if (!active) return step(undefined);
  const span = active.start(name, options);
  return active.within(span, async () => {
    try {
      return await step(span);
    } catch (error) {
      span.fail(error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      span.end();
    }
  });
}
