import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';

/** Stands before a registry and holds large blobs back at their half until told to go on: for looking at what is under way. */
export class HeldRegistry {
  readonly #server: http.Server;
  #waiting: (() => void)[] = [];
  #released = false;

  private constructor(upstream: string) {
    this.#server = http.createServer((request, response) => {
      const up = http.request(new URL(request.url ?? '/', `http://${upstream}`), {
        method: request.method ?? 'GET',
        headers: request.headers,
      });
      up.on('error', () => response.destroy());
      up.on('response', (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        void this.#pass(answer, response);
      });
      request.pipe(up);
    });
  }

  static async start(upstream: string): Promise<HeldRegistry> {
    const held = new HeldRegistry(upstream);
    held.#server.listen(0, '127.0.0.1');
    await once(held.#server, 'listening');
    return held;
  }

  get address(): string {
    return `localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  release(): void {
    this.#released = true;
    for (const go of this.#waiting.splice(0)) go();
  }

  async close(): Promise<void> {
    this.release();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #pass(answer: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const half = Number(answer.headers['content-length'] ?? 0) / 2;
    let sent = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      if (half > 50_000 && sent + chunk.length > half && !this.#released) {
        const first = Math.max(0, Math.floor(half - sent));
        response.write(chunk.subarray(0, first));
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
        response.write(chunk.subarray(first));
      } else response.write(chunk);
      sent += chunk.length;
    }
    response.end();
  }
}
