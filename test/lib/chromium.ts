// Debian's Chromium without a window, driven by the DevTools protocol over a pipe: no port, and no library between.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { endProcess, eventually } from './processes.ts';

export const chromium = '/usr/bin/chromium';

/** Why it cannot be used here, if it cannot. */
export function chromiumMissing(): string | false {
  return existsSync(chromium) ? false : 'chromium is not installed';
}

interface Answer {
  id?: number;
  method?: string;
  params?: object;
  result?: object;
  error?: { message: string };
}

export interface Screen {
  width: number;
  height: number;
  dark?: boolean;
  /** As for an eye that sees no colours. */
  grayscale?: boolean;
  phone?: boolean;
}

/** One browser with one page. */
export class Browser {
  readonly #child: ChildProcess;
  readonly #in: Writable;
  readonly #waiting = new Map<number, { resolve(result: object): void; reject(error: Error): void }>();
  /** What the page has complained of: exceptions, refused loads, errors on its console. */
  readonly complaints: string[] = [];
  #session: string | undefined;
  #next = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#in = child.stdio[3] as Writable;
    let rest = '';
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const message of messages) this.#receive(JSON.parse(message) as Answer);
    });
  }

  /** @param directory for its profile */
  static async start(directory: string): Promise<Browser> {
    const child = spawn(
      chromium,
      [
        '--headless=new',
        '--remote-debugging-pipe',
        `--user-data-dir=${directory}`,
        // Root, as tests are, has no sandbox.
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-extensions',
        'about:blank',
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: directory } },
    );
    const browser = new Browser(child);
    const target = await eventually(
      'chromium has a page',
      async () => {
        const { targetInfos } = (await browser.call('Target.getTargets')) as {
          targetInfos: { targetId: string; type: string }[];
        };
        return targetInfos.find(({ type }) => type === 'page');
      },
      60_000,
    );
    const { sessionId } = (await browser.call('Target.attachToTarget', {
      targetId: target.targetId,
      flatten: true,
    })) as { sessionId: string };
    browser.#session = sessionId;
    for (const domain of ['Page', 'Runtime', 'Log', 'Accessibility']) await browser.call(`${domain}.enable`);
    return browser;
  }

  /** Calls a method of the protocol, on the page once there is one. */
  call(method: string, params: object = {}): Promise<object> {
    const id = ++this.#next;
    const message = { id, method, params, ...(this.#session && { sessionId: this.#session }) };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#in.write(`${JSON.stringify(message)}\0`);
    });
  }

  async open(url: string): Promise<void> {
    const { errorText } = (await this.call('Page.navigate', { url })) as { errorText?: string };
    if (errorText) throw new Error(`${url}: ${errorText}`);
  }

  async screen({ width, height, dark = false, grayscale = false, phone = false }: Screen): Promise<void> {
    await this.call('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: phone ? 2 : 1,
      mobile: phone,
    });
    await this.call('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }],
    });
    await this.call('Emulation.setEmulatedVisionDeficiency', { type: grayscale ? 'achromatopsia' : 'none' });
  }

  /** The value of an expression in the page; promises are waited for. */
  async value<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = (await this.call('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    })) as { result: { value: T }; exceptionDetails?: { exception?: { description?: string }; text: string } };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until an expression is true in the page. */
  async until(what: string, expression: string): Promise<void> {
    await eventually(what, async () => (await this.value<boolean>(expression)) || undefined, 60_000);
  }

  /** Presses a key: `Tab`, `Enter`, `Space`. */
  async press(key: string, modifiers = 0): Promise<void> {
    const [code, text] = { Tab: [9, ''], Enter: [13, '\r'], Space: [32, ' '] }[key] as [number, string];
    const common = { key: key === 'Space' ? ' ' : key, code: key, windowsVirtualKeyCode: code, modifiers };
    await this.call('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', text, ...common });
    await this.call('Input.dispatchKeyEvent', { type: 'keyUp', ...common });
  }

  /** What assistive technologies are told: `role name` of everything that has both. */
  async accessible(): Promise<string[]> {
    const { nodes } = (await this.call('Accessibility.getFullAXTree')) as {
      nodes: { ignored: boolean; role?: { value: string }; name?: { value: string } }[];
    };
    return nodes
      .filter(({ ignored, name }) => !ignored && name?.value)
      .map(({ role, name }) => `${role?.value} ${name?.value}`);
  }

  /** A picture of the whole page, PNG. */
  async picture(): Promise<Buffer> {
    const { cssContentSize } = (await this.call('Page.getLayoutMetrics')) as {
      cssContentSize: { width: number; height: number };
    };
    const { data } = (await this.call('Page.captureScreenshot', {
      captureBeyondViewport: true,
      clip: { x: 0, y: 0, width: cssContentSize.width, height: Math.min(cssContentSize.height, 4000), scale: 1 },
    })) as { data: string };
    return Buffer.from(data, 'base64');
  }

  async close(): Promise<void> {
    await endProcess(this.#child);
  }

  #receive(answer: Answer): void {
    if (answer.id === undefined) {
      const { method, params = {} } = answer;
      if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded')
        this.complaints.push(JSON.stringify(params));
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.error) waiting?.reject(new Error(answer.error.message));
    else waiting?.resolve(answer.result ?? {});
  }
}
