import { Session } from 'node:inspector/promises';
import { waited } from './cpu-profile.ts';

/** What Node and V8 tell of themselves: collections, calls to the filesystem, work of the thread pool, HTTP. */
const includedCategories = [
  'node.environment',
  'node.fs.async',
  'node.fs.sync',
  'node.http',
  'node.net.native',
  'node.perf',
  'node.threadpoolwork.async',
  'v8',
];
/** Characters of JSON after which the trace ends early: it is kept in memory. */
const textMax = 64 << 20;

/** A trace of events in Chrome's format, which ui.perfetto.dev opens. An abort ends it early. */
export async function trace(seconds: number, signal: AbortSignal): Promise<string> {
  const session = new Session();
  session.connect();
  const full = new AbortController();
  const events: string[] = [];
  let length = 0;
  session.on('NodeTracing.dataCollected', ({ params }) => {
    if (length > textMax) return full.abort();
    const text = params.value.map((event) => JSON.stringify(event)).join(',\n');
    length += text.length;
    if (text !== '') events.push(text);
  });
  const complete = new Promise<void>((resolve) => session.once('NodeTracing.tracingComplete', () => resolve()));
  try {
    await session.post('NodeTracing.start', { traceConfig: { includedCategories } });
    await waited(seconds, AbortSignal.any([signal, full.signal]));
    await session.post('NodeTracing.stop');
    await complete;
  } finally {
    session.disconnect();
  }
  return `{"traceEvents":[${events.join(',\n')}]}\n`;
}
