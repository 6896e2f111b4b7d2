// Gantry's answer to Go's net/http/pprof: the same paths, with what a JavaScript process has to tell. docs/debugging.md
import { createReadStream, fstatSync } from 'node:fs';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { cpuProfile } from './cpu-profile.ts';
import { eventLoopDelay } from './event-loop.ts';
import { heapSnapshot } from './heap-snapshot.ts';
import { memoryReport } from './memory.ts';
import { formatThreads, nativeThreads } from './native-threads.ts';
import { stacks } from './stacks.ts';
import { trace } from './trace.ts';

/** What a request answers: text (JSON, if it says so), an object for people and programs to read as JSON, a descriptor to read a file from (and to close), or a refusal. */
export type Answer =
  | { readonly text: string; readonly isJson?: true }
  | { readonly json: unknown }
  | { readonly fd: number }
  | { readonly refused: string; readonly status: number };

export interface Request {
  readonly seconds: number;
  readonly thread: number;
  /** `gc=1`, as Go's profiler has it: the heap is collected first. */
  readonly collect: boolean;
  /** Nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  readonly sources: DebugSources;
}

export interface Route {
  readonly about: string;
  /** Where a duration may be given: the one that is meant if none is. */
  readonly seconds?: number;
  /** One at a time: they would measure each other. */
  readonly alone?: true;
  answer(request: Request): Promise<Answer> | Answer;
}

/** What the process itself knows of its doings. */
export interface DebugSources {
  /** What /debug/vars shows. */
  variables(): unknown;
  /** One line for each thing it is busy with, or waits for. */
  activities(): string[];
}

const secondsMax = 300;
const noThread = (thread: number): Answer => ({ refused: `there is no thread ${thread}`, status: 404 });

const routes: Record<string, Route> = {
  '/debug/pprof/goroutine': {
    about: 'calls in flight, what keeps the main thread alive, stacks of workers, all threads',
    alone: true,
    answer: async ({ sources }) => ({ text: await stacks(sources.activities()) }),
  },
  '/debug/pprof/heap': {
    about: 'snapshot of the heap (.heapsnapshot); thread=N: of a worker',
    alone: true,
    answer: async ({ thread }) => {
      const fd = await heapSnapshot(thread);
      return fd === undefined ? noThread(thread) : { fd };
    },
  },
  '/debug/pprof/profile': {
    about: 'where time goes (.cpuprofile); seconds=N, thread=N: of a worker',
    seconds: 30,
    alone: true,
    answer: async ({ seconds, thread, signal }) => {
      const profile = await cpuProfile(seconds, thread, signal);
      return profile ? { text: JSON.stringify(profile), isJson: true } : noThread(thread);
    },
  },
  '/debug/pprof/trace': {
    about: "events of Node and V8 in Chrome's format; seconds=N",
    seconds: 5,
    alone: true,
    answer: async ({ seconds, signal }) => ({ text: await trace(seconds, signal), isJson: true }),
  },
  '/debug/pprof/block': {
    about: 'how late the event loop comes to what is due; seconds=N',
    seconds: 5,
    answer: async ({ seconds, signal }) => ({ json: await eventLoopDelay(seconds, signal) }),
  },
  '/debug/pprof/threadcreate': {
    about: 'all threads as the kernel sees them',
    answer: () => ({ text: formatThreads(nativeThreads()) }),
  },
  '/debug/memory': {
    about: 'memory by kind; gc=1: after a collection',
    answer: async ({ collect }) => ({ json: await memoryReport(collect) }),
  },
};

/** Answers requests for what the process does. To be served on a socket of root's alone: heaps hold secrets. */
export function debugListener(sources: DebugSources): RequestListener {
  return answerRoutes(routes, sources);
}

/** Answers what a table of paths says. */
export function answerRoutes(routes: Readonly<Record<string, Route>>, sources: DebugSources): RequestListener {
  let alone = false;
  return async (request, response) => {
    const controller = new AbortController();
    response.once('close', () => controller.abort());
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://debug');
    const route = Object.hasOwn(routes, pathname) ? routes[pathname] : undefined;
    try {
      const refused = refusal(request, pathname, route, searchParams) ?? (route?.alone && alone ? busy : undefined);
      if (refused) return await send(response, refused);
      if (pathname === '/debug/vars') return await send(response, { json: sources.variables() });
      if (!route) return await send(response, { text: index(routes) });
      const seconds = Number(searchParams.get('seconds') ?? route.seconds);
      const thread = Number(searchParams.get('thread') ?? 0);
      const collect = Number(searchParams.get('gc') ?? 0) > 0;
      if (route.alone) alone = true;
      let answer: Answer;
      try {
        answer = await route.answer({ seconds, thread, collect, signal: controller.signal, sources });
      } finally {
        // Before the answer goes: who has it may ask for the next.
        if (route.alone) alone = false;
      }
      await send(response, answer);
    } catch (error) {
      if (response.headersSent) response.destroy();
      else await send(response, { refused: (error as Error).message, status: 500 });
    }
  };
}

const busy: Answer = { refused: 'another profile, snapshot or dump is being made', status: 409 };

function refusal(
  request: IncomingMessage,
  pathname: string,
  route: Route | undefined,
  parameters: URLSearchParams,
): Answer | undefined {
  if (!route && !['/debug/vars', '/debug/pprof', '/debug/pprof/'].includes(pathname))
    return { refused: 'not found', status: 404 };
  if (request.method !== 'GET') return { refused: 'only GET is answered', status: 405 };
  const seconds = parameters.get('seconds');
  if (route?.seconds !== undefined && seconds !== null && !(Number(seconds) > 0 && Number(seconds) <= secondsMax))
    return { refused: `seconds=${seconds}: expected a number up to ${secondsMax}`, status: 400 };
  const thread = parameters.get('thread');
  if (thread !== null && !/^\d{1,9}$/.test(thread))
    return { refused: `thread=${thread}: expected the number of a thread`, status: 400 };
  return undefined;
}

function index(routes: Readonly<Record<string, Route>>): string {
  const all = [...Object.entries(routes), ['/debug/vars', { about: 'counts, memory and plugins' }] as const];
  return all.map(([name, { about }]) => `${name.padEnd(26)} ${about}\n`).join('');
}

async function send(response: ServerResponse, answer: Answer): Promise<void> {
  response.setHeader('cache-control', 'no-store');
  if ('fd' in answer) {
    const { size } = fstatSync(answer.fd);
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': size });
    await pipeline(createReadStream('', { fd: answer.fd, start: 0 }), response);
    return;
  }
  const json = 'json' in answer || ('text' in answer && answer.isJson === true);
  response.setHeader('content-type', json ? 'application/json' : 'text/plain; charset=utf-8');
  if ('refused' in answer) {
    if (answer.status === 405) response.setHeader('allow', 'GET');
    response.writeHead(answer.status).end(`${answer.refused}\n`);
  } else response.end('json' in answer ? `${JSON.stringify(answer.json, undefined, 2)}\n` : answer.text);
}
