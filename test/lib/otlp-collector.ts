// An OpenTelemetry collector that keeps what it is sent: OTLP over HTTP and over gRPC, read by hand from the wire.
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import * as grpc from '@grpc/grpc-js';
import { eventually } from './processes.ts';

export interface CollectedSpan {
  /** `service.name` of the process that it is from. */
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  /** Empty at the root of a trace. */
  readonly parentId: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client. */
  readonly kind: number;
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
  readonly events: readonly string[];
  /** 0 unset, 1 ok, 2 error. */
  readonly status: number;
}

/** What a request asks for, and what it was sent with. */
const exportMethod = '/opentelemetry.proto.collector.trace.v1.TraceService/Export';

export class OtlpCollector {
  readonly spans: CollectedSpan[] = [];
  readonly #http: http.Server;
  readonly #grpc = new grpc.Server();
  #grpcPort = 0;

  private constructor() {
    this.#http = http.createServer((request, response) => {
      void buffer(request).then((body) => {
        if (request.url !== '/v1/traces' || request.headers['content-type'] !== 'application/x-protobuf')
          return response.writeHead(404).end();
        this.#take(request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body);
        return response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
      });
    });
    const identity = (bytes: Buffer): Buffer => bytes;
    this.#grpc.addService(
      {
        export: {
          path: exportMethod,
          requestStream: false,
          responseStream: false,
          requestSerialize: identity,
          requestDeserialize: identity,
          responseSerialize: identity,
          responseDeserialize: identity,
        },
      },
      {
        export: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
          this.#take(call.request);
          done(null, Buffer.alloc(0));
        },
      },
    );
  }

  static async start(): Promise<OtlpCollector> {
    const collector = new OtlpCollector();
    collector.#http.listen(0, '127.0.0.1');
    await once(collector.#http, 'listening');
    collector.#grpcPort = await new Promise((resolve, reject) => {
      const credentials = grpc.ServerCredentials.createInsecure();
      collector.#grpc.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port)));
    });
    return collector;
  }

  /** What OTEL_EXPORTER_OTLP_ENDPOINT is for a protocol. */
  endpoint(protocol: 'http/protobuf' | 'grpc'): string {
    const port = protocol === 'grpc' ? this.#grpcPort : (this.#http.address() as AddressInfo).port;
    return `http://127.0.0.1:${port}`;
  }

  /** The spans of a trace, when some among them are as wanted. */
  trace(what: string, wanted: (spans: CollectedSpan[]) => boolean, traceId?: string): Promise<CollectedSpan[]> {
    return eventually(
      what,
      () => {
        const ids = traceId === undefined ? new Set(this.spans.map((span) => span.traceId)) : [traceId];
        for (const id of ids) {
          const spans = this.spans.filter((span) => span.traceId === id);
          if (wanted(spans)) return spans;
        }
        return undefined;
      },
      60_000,
    );
  }

  async close(): Promise<void> {
    this.#grpc.forceShutdown();
    this.#http.closeAllConnections();
    this.#http.close();
    await once(this.#http, 'close');
  }

  #take(request: Uint8Array): void {
    for (const resourceSpans of fields(request, 1)) {
      const { 'service.name': service = '' } = keyValues(
        fields(resourceSpans, 1).flatMap((resource) => fields(resource, 1)),
      );
      for (const span of fields(resourceSpans, 2).flatMap((scope) => fields(scope, 2)))
        this.spans.push(readSpan(String(service), span));
    }
  }
}

function readSpan(service: string, bytes: Uint8Array): CollectedSpan {
  const hex = (number: number): string => Buffer.from(fields(bytes, number)[0] ?? []).toString('hex');
  const status = fields(bytes, 15)[0];
  return {
    service,
    traceId: hex(1),
    spanId: hex(2),
    parentId: hex(4),
    name: text(fields(bytes, 5)[0]),
    kind: numbers(bytes, 6)[0] ?? 0,
    attributes: keyValues(fields(bytes, 9)),
    events: fields(bytes, 11).map((event) => text(fields(event, 2)[0])),
    status: status ? (numbers(status, 3)[0] ?? 0) : 0,
  };
}

const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('utf8');

/** OTLP's key and value messages. */
function keyValues(pairs: readonly Uint8Array[]): Record<string, string | number | boolean> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const value = fields(pair, 2)[0] ?? new Uint8Array();
      const [string] = fields(value, 1);
      const [bool] = numbers(value, 2);
      return [
        text(fields(pair, 1)[0]),
        string ? text(string) : bool === undefined ? (numbers(value, 3)[0] ?? '') : bool === 1,
      ];
    }),
  );
}

/** The fields of a message that have this number and are bytes. */
function fields(bytes: Uint8Array, wanted: number): Uint8Array[] {
  return read(bytes, wanted, WireType.LengthDelimited, (reader) => reader.bytes());
}

function numbers(bytes: Uint8Array, wanted: number): number[] {
  return read(bytes, wanted, WireType.Varint, (reader) => Number(reader.int64()));
}

function read<T>(bytes: Uint8Array, wanted: number, kind: WireType, take: (reader: BinaryReader) => T): T[] {
  const reader = new BinaryReader(bytes);
  const found: T[] = [];
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === wanted && type === kind) found.push(take(reader));
    else reader.skip(type, number);
  }
  return found;
}
