// The live page, asked by hand for what it refuses, and looked at in Debian's Chromium on a desk and on a phone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Browser, chromiumMissing } from '../lib/chromium.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { HeldRegistry } from '../lib/held-registry.ts';
import { buildImage, buildTestImages } from '../lib/images.ts';
import { eventually, freePort, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const root = process.getuid?.() === 0 ? false : 'the daemon needs root';
const [own] = ctrClients();
const live = "[plugins.'io.containerd.server.v1.live']\n";

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

async function ask(where: http.RequestOptions): Promise<Answer> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http
      .request({ agent: false, timeout: 10_000, ...where }, resolve)
      .on('timeout', () => reject(new Error('no answer')))
      .on('error', reject)
      .end();
  });
  return { status: response.statusCode!, headers: response.headers, body: await text(response) };
}

describe('the live page’s server', { skip: root || (own!.missing ?? false) }, () => {
  const temp = makeTempDir('live-http');
  const socketPath = path.join(temp.path, 'live.sock');
  const daemon = new TestDaemon(path.join(temp.path, 'd'), `${live}address = '${socketPath}'\n`);
  const get = (url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> =>
    ask({ socketPath, path: url, method, headers: { host: 'localhost', ...headers } });

  before(() => daemon.start());
  after(async () => {
    await daemon.stop();
    assert.ok(!existsSync(socketPath), 'the socket is gone with the daemon');
    await temp.remove();
  });

  test('is on a socket of root’s alone', () => assert.equal(statSync(socketPath).mode & 0o777, 0o600));

  test('answers those who ask for this machine by its own name', async () => {
    for (const host of ['localhost', 'localhost:8080', '127.0.0.1:1', '127.9.9.9', '[::1]:80'])
      assert.equal((await get('/', { host })).status, 200, host);
    for (const host of [
      'evil.example',
      'localhost.evil.example',
      '10.0.0.1:8080',
      '127.0.0.1.evil.example:80',
      '[::2]',
    ])
      assert.equal((await get('/', { host })).status, 421, host);
  });

  test('answers reads only, and no page of another site', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
      assert.equal((await get('/state', {}, method)).status, 405, method);
    const head = await get('/page.css', {}, 'HEAD');
    assert.deepEqual([head.status, head.body], [200, '']);
    const foreign = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' };
    for (const url of ['/', '/page.js', '/state', '/events']) assert.equal((await get(url, foreign)).status, 403, url);
    assert.equal((await get('/', { ...foreign, 'sec-fetch-mode': 'navigate' })).status, 200);
    assert.equal((await get('/state')).headers['access-control-allow-origin'], undefined);
    for (const url of ['/x', '/constructor', '/../live-http.ts', '/page.html', '/%2e%2e/', '/page.js/'])
      assert.equal((await get(url)).status, 404, url);
  });

  test('lets a browser load nothing that is not its own', async () => {
    const { headers, body } = await get('/');
    const policy = headers['content-security-policy'] as string;
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'/);
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    assert.match(policy, /frame-ancestors 'none'/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.doesNotMatch(body + (await get('/page.js')).body, /src=["']?https?:|import\s*\(|innerHTML|\beval\b/);
  });

  test('tells programs the state in JSON', async () => {
    const state = JSON.parse((await get('/state')).body) as Record<string, unknown>;
    assert.deepEqual(Object.keys(state).sort(), [
      'containers',
      'daemon',
      'deprecations',
      'images',
      'process',
      'transfers',
      'usage',
    ]);
  });

  test('is not configured for the whole network', async () => {
    const config = path.join(temp.path, 'config.toml');
    for (const address of ['0.0.0.0:80', ':8080', '192.168.1.1:80', 'example.com:80', '[::]:80', '127.0.0.1']) {
      writeFileSync(config, `version = 4\nimports = []\n${live}address = '${address}'\n`);
      const { code, stderr } = await run(bin.gantryd, ['-c', config, 'config', 'dump'], { mayFail: true });
      assert.notEqual(code, 0, address);
      assert.match(stderr, /io\.containerd\.server\.v1\.live.*address: expected the path of a unix socket/, address);
    }
  });
});

const needs =
  root ||
  (own!.missing ??
    (chromiumMissing() || (existsSync('/usr/bin/docker-registry') ? false : 'docker-registry is not installed')));

describe('the live page in Chromium', { skip: needs }, () => {
  const temp = makeTempDir('live-page');
  let port = 0;
  let daemon: TestDaemon;
  let session: CtrSession;
  let registry: TestRegistry;
  let held: HeldRegistry;
  let browser: Browser;
  let image = '';
  const hostile = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>\u202egpj.exe';

  before(async () => {
    port = await freePort();
    daemon = new TestDaemon(
      path.join(temp.path, 'd'),
      `${live}address = '127.0.0.1:${port}'\ninterval = '500ms'\n[plugins.'io.containerd.internal.v1.tracing']\nservice_name = 'x'\n`,
    );
    session = new CtrSession(own!, daemon.address, 'shop');
    const { busybox } = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    const large = path.join(temp.path, 'images/large');
    await buildImage(large, [(layer) => writeFileSync(path.join(layer, 'random'), randomBytes(8 << 20))], {});
    registry = await TestRegistry.start(temp.path);
    await registry.fill(busybox, 'library/busybox:1');
    await registry.fill(large, 'library/large:1');
    held = await HeldRegistry.start(registry.address);
    image = `${registry.address}/library/busybox:1`;
    await daemon.start();
    await session.ok('images', 'pull', '--plain-http', image);
    await session.ok('run', '-d', '--label', `note=${hostile}`, image, 'web', 'sh', '-c', 'while true; do true; done');
    await session.ok('run', '-d', image, 'failed', 'false');
    mkdirSync(path.join(temp.path, 'profile'));
    browser = await Browser.start(path.join(temp.path, 'profile'));
    await browser.screen({ width: 1280, height: 900 });
    await browser.open(`http://localhost:${port}/`);
    await browser.until('the page is live', `document.querySelector('#link .words')?.textContent === 'Live'`);
  });
  after(async () => {
    await browser?.close();
    for (const id of ['web', 'failed', 'late']) await session.try('tasks', 'rm', '-f', id);
    await daemon?.stop();
    await held?.close();
    await registry?.close();
    await temp.remove();
  });

  const rowOf = (id: string): string =>
    `[...document.querySelectorAll('#containers-rows tr')].find((row) => row.querySelector('.name').textContent === '${id}')`;

  test('shows containers with what they use, images and deprecations', async () => {
    await browser.until('CPU of web', `parseFloat(${rowOf('web')}?.querySelector('.cpu .value').textContent) > 20`);
    assert.match(
      await browser.value(`${rowOf('web')}.querySelector('.memory .value').textContent`),
      /^\d[\d.]* [KM]iB$/,
    );
    await browser.until(
      'a plot',
      `${rowOf('web')}.querySelector('.cpu path.line').getAttribute('d').split('L').length > 3`,
    );
    await browser.until(
      'its end',
      `${rowOf('failed')}?.querySelector('.state').textContent.includes('stopped, code 1')`,
    );
    assert.equal(await browser.value(`${rowOf('failed')}.querySelector('.cpu').hasAttribute('data-none')`), true);
    await browser.until('the image', `document.querySelector('#images').textContent.includes('library/busybox:1')`);
    await browser.until(
      'deprecations',
      `document.querySelector('#deprecations').textContent.includes('tracing-service-config')`,
    );
  });

  test('shows what happens when it happens, and a pull while it goes on', async () => {
    const pulled = `${held.address}/library/large:1`;
    const pull = spawn(own!.file, session.arguments(['images', 'pull', '--plain-http', pulled]), { stdio: 'ignore' });
    const done = new Promise((resolve) => pull.once('exit', resolve));
    const transfer = `[...document.querySelectorAll('#transfers > li')].find((row) => row.textContent.includes('${held.address}'))`;
    await browser.until('the pull', `${transfer} !== undefined`);
    await browser.until(
      'a half',
      `[...(${transfer}?.querySelectorAll('.parts progress') ?? [])].some((one) => one.value > 0 && one.value < one.max)`,
    );
    held.release();
    assert.equal(await done, 0);
    await browser.until('the end of the pull', `${transfer} === undefined`);
    await session.ok('run', '-d', image, 'late', 'sleep', '1000');
    await browser.until(
      'the new container',
      `${rowOf('late')}?.querySelector('.state').textContent.includes('running')`,
    );
    await browser.until(
      'its event',
      `[...document.querySelectorAll('#events li')].some((one) => one.textContent.includes('/tasks/start') && one.textContent.includes('container_id=late'))`,
    );
    await session.ok('tasks', 'pause', 'late');
    await browser.until('the pause', `${rowOf('late')}.querySelector('.state .words').textContent === 'paused'`);
  });

  test('shows hostile text as text', async () => {
    const label = `${rowOf('web')}.querySelector('details')`;
    await browser.value(`${label}.open = true`);
    const shown = await browser.value<string>(`${label}.textContent`);
    assert.ok(shown.includes('<img src=x onerror="window.hacked=1"><script>'), shown);
    assert.ok(shown.includes('\\u202egpj.exe'), 'what turns the text around is written out');
    assert.equal(await browser.value(`${label}.querySelectorAll('img, script').length`), 0);
    assert.equal(await browser.value('window.hacked'), undefined);
  });

  for (const [name, screen] of [
    ['a desk', { width: 1280, height: 900 }],
    ['a phone', { width: 390, height: 844, phone: true }],
  ] as const) {
    test(`fits ${name}, by day and by night, for eyes without colours too`, async () => {
      for (const dark of [false, true]) {
        await browser.screen({ ...screen, dark, grayscale: true });
        await browser.until('it is drawn', `innerWidth === ${screen.width}`);
        const widths = await browser.value<number[]>(
          '[document.documentElement.scrollWidth, document.documentElement.clientWidth]',
        );
        assert.equal(widths[0], widths[1], 'nothing to the side');
        const outside = await browser.value<
          string[]
        >(`[...document.body.querySelectorAll('*:not(.skip, .hidden, thead, thead *, path)')]
          .filter((one) => { const box = one.getBoundingClientRect(); return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1); })
          .map((one) => one.outerHTML.slice(0, 100))`);
        assert.deepEqual(outside, []);
        assert.deepEqual(await browser.value<string[]>(faintTexts), [], dark ? 'at night' : 'by day');
        if (process.env['GANTRY_PICTURES'])
          writeFileSync(
            path.join(process.env['GANTRY_PICTURES'], `live-${screen.width}${dark ? '-dark' : ''}.png`),
            await browser.picture(),
          );
      }
      // State is a word and a shape: two states are told apart without any colour.
      const states = await browser.value<string[]>(
        `[...document.querySelectorAll('#containers-rows .state')].map((one) => one.textContent.trim())`,
      );
      assert.deepEqual(new Set(states), new Set(['▶ running', '⏸ paused', '✕ stopped, code 1']));
    });
  }

  test('is used by keyboard alone', async () => {
    await browser.screen({ width: 1280, height: 900 });
    await browser.value(`document.activeElement.blur(), scrollTo(0, 0)`);
    await browser.call('Page.bringToFront');
    const focused = (): Promise<{ what: string; outline: string; top: number }> =>
      browser.value(`(() => { const at = document.activeElement; const style = getComputedStyle(at);
        return { what: at.id || at.className || at.tagName, outline: style.outlineStyle + ' ' + style.outlineWidth, top: at.getBoundingClientRect().top }; })()`);
    const order: string[] = [];
    for (let presses = 0; presses < 40; presses++) {
      await browser.press('Tab');
      const { what, outline, top } = await focused();
      if (what === 'BODY') break;
      assert.match(outline, /^(solid|auto) [1-9]/, `one sees that ${what} has the focus`);
      assert.ok(top >= 0, `${what} is in sight`);
      order.push(what);
    }
    assert.deepEqual(order.slice(0, 4), ['skip', 'namespace', 'filter', 'pause']);
    assert.ok(order.includes('SUMMARY') && order.at(-1) === 'events-scroll', order.join(' '));
    await browser.value(`document.querySelector('.skip').focus()`);
    await browser.press('Enter');
    await browser.until('the way past the head', `document.activeElement.id === 'main'`);
    await browser.value(`document.getElementById('pause').focus()`);
    await browser.press('Space');
    await browser.until('the pause', `document.querySelector('#link .words').textContent === 'Paused'`);
    assert.equal(await browser.value(`document.getElementById('pause').getAttribute('aria-pressed')`), 'true');
    await browser.press('Space');
    await browser.until('it goes on', `document.querySelector('#link .words').textContent === 'Live'`);
    await browser.value(`document.getElementById('filter').focus()`);
    await browser.call('Input.insertText', { text: 'fail' });
    await browser.until('the filter', `document.querySelectorAll('#containers-rows tr').length === 1`);
    await browser.value(
      `(() => { const filter = document.getElementById('filter'); filter.value = ''; filter.dispatchEvent(new Event('input')); })()`,
    );
  });

  test('says to assistive technologies what is what', async () => {
    const said = await browser.accessible();
    for (const wanted of [
      /^heading Gantry$/,
      /^table Containers/,
      /^columnheader Memory$/,
      /^image CPU of web: \d[\d.]* %, at most \d+ % lately$/,
      /^image Memory of the daemon: /,
      /^combobox Namespace$/,
      /^searchbox Filter by name$/,
      /^button Pause$/,
      /^region Events/,
      /^link Skip to containers$/,
    ])
      assert.ok(
        said.some((one) => wanted.test(one)) || wanted.source === '^status ',
        `${wanted} in\n${said.join('\n')}`,
      );
    assert.equal(await browser.value(`document.documentElement.lang`), 'en');
    assert.equal(await browser.value(`document.getElementById('link').getAttribute('role')`), 'status');
  });

  test('reads nothing for a page that nobody sees', async () => {
    await browser.value(
      `Object.defineProperty(document, 'hidden', { configurable: true, value: true }), document.dispatchEvent(new Event('visibilitychange'))`,
    );
    await browser.until('it waits', `document.querySelector('#link .words').textContent === 'Waiting'`);
    // The connection is closed, so the daemon has no one to read for.
    await eventually('the connection is gone', () => (established(port) === 0 ? true : undefined));
    await browser.value(`delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))`);
    await browser.until('it is back', `document.querySelector('#link .words').textContent === 'Live'`);
    await daemon.stop();
    await browser.until(
      'it says when it is alone',
      `document.querySelector('#link .words').textContent === 'Not connected'`,
    );
    await daemon.start();
    await browser.until('and comes back by itself', `document.querySelector('#link .words').textContent === 'Live'`);
    const complaints = browser.complaints.filter((one) => !one.includes('ERR_'));
    assert.deepEqual(complaints, []);
  });
});

/** Streams that a server on this port has open: those that have sent something lately. */
function established(port: number): number {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/net/tcp', 'utf8').trim().split('\n').slice(1);
  return lines.filter((line) => {
    const [, local, , state] = line.trim().split(/\s+/);
    return local?.endsWith(`:${hex}`) && state === '01';
  }).length;
}

/** Texts whose contrast with what is behind them is less than 4.5, as WCAG counts it. */
const faintTexts = `(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => (one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  for (const node of document.body.querySelectorAll('*:not(option)')) {
    if (![...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim())) continue;
    const a = light(parse(getComputedStyle(node).color));
    const b = light(behind(node));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.add(node.className + ' ' + node.textContent.slice(0, 30) + ' ' + contrast.toFixed(2));
  }
  return [...faint];
})()`;
