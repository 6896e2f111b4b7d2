import { connect } from 'node:net';

/** What became of asking a shim to keep a place: it does, nobody is there, or it is on its way out. */
export type Reservation = 'reserved' | 'absent' | 'closing';

/**
 * Asks the shim at a control socket to expect a container, so that it does not leave between the answer of `start` and the
 * daemon's Create. Doubles as the question whether a shim lives there.
 */
export function reserve(control: string, namespace: string, id: string, timeoutMs = 5000): Promise<Reservation> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path: control });
    let answer = '';
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`shim at ${control} does not answer`));
    }, timeoutMs);
    const finish = (result: Reservation): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    socket.on('error', () => finish('absent'));
    socket.on('connect', () => socket.write(`${JSON.stringify({ reserve: { namespace, id } })}\n`));
    socket.on('data', (data) => {
      answer += data.toString('utf8');
      if (answer.includes('\n')) finish(answer.includes('"reserved"') ? 'reserved' : 'closing');
    });
    socket.on('close', () => finish(answer === '' ? 'absent' : 'closing'));
  });
}

/**
 * Asks the shim at a control socket one thing. @returns its answer, empty if there was none within the time; undefined if nobody is
 * there
 */
export function askControl(
  control: string,
  request: object,
  timeoutMs: number,
): Promise<Record<string, string> | undefined> {
  return new Promise((resolve) => {
    let connected = false;
    let answer = '';
    const socket = connect({ path: control });
    socket.setTimeout(timeoutMs, () => socket.destroy());
    socket.on('connect', () => {
      connected = true;
      socket.write(`${JSON.stringify(request)}\n`);
    });
    socket.on('data', (data) => {
      answer += data.toString('utf8');
      if (answer.includes('\n')) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(connected ? parse(answer) : undefined));
  });
}

function parse(answer: string): Record<string, string> {
  try {
    return JSON.parse(answer) as Record<string, string>;
  } catch {
    return {};
  }
}
