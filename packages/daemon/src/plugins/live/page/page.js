// The live page: gets the parts of the daemon's state as they change and puts them into the page. Whatever comes is text: nothing of it
// is ever read as markup, and characters that would show it as something else are written out.

const samplesMax = 60;
/** Rows of a list that are shown; the rest is counted. */
const rowsMax = 200;
const byId = (id) => document.getElementById(id);
const state = { containers: [], images: [], events: [], transfers: { transfers: [], ingests: [] }, deprecations: [] };
/** Series of CPU and memory, by `namespace/id`; those of the daemon itself are `''`. */
const series = new Map();

// Text

/** Control characters, and those that turn or hide what stands around them, written as their numbers. */
const strange = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u3164]/gu;
const visible = (text) =>
  String(text).replace(strange, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, '0')}`);
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
function bytes(number) {
  let value = number;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
const percent = (value) => (value === null ? '–' : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`);
function age(since) {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

// Elements

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (key === 'class') made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
/** Sets text if it is another: what is selected or read out stays as it is. */
function put(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}
/** The same for a name that is best broken after its slashes, colons and the like. */
function putName(node, text) {
  const shown = visible(text);
  if (node.textContent === shown) return;
  const parts = shown.split(/(?<=[/:@_.-])/);
  node.replaceChildren(...parts.flatMap((part) => [part, document.createElement('wbr')]));
}
function attribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Brings the children of a list in line with items: each keeps its element for as long as its key is there. */
function list(parent, items, key, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = before.get(name);
    before.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of before.values()) child.remove();
}

/** Fills a section: its list, how many there are, and what it says when there are none. */
function section(name, items, ...how) {
  put(byId(`${name}-count`), items.length > rowsMax ? `${items.length}, ${rowsMax} shown` : items.length || '');
  byId(`${name}-empty`).hidden = items.length > 0;
  list(byId(name === 'containers' ? 'containers-rows' : name), items.slice(0, rowsMax), ...how);
}

// Plots

const svgNames = 'http://www.w3.org/2000/svg';
function plot(kind) {
  const svg = document.createElementNS(svgNames, 'svg');
  svg.setAttribute('class', `plot ${kind}`);
  svg.setAttribute('viewBox', `0 0 ${samplesMax - 1} 20`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  for (const part of ['area', 'line']) {
    const path = document.createElementNS(svgNames, 'path');
    path.setAttribute('class', part);
    svg.append(path);
  }
  return svg;
}
/** Draws values with the newest at the right edge; null is a gap. `least` is what the height stands for at the least. */
function draw(svg, values, least, label) {
  const top = Math.max(least, ...values.map((value) => value ?? 0)) || 1;
  let line = '';
  let area = '';
  let from;
  const close = (x) => {
    if (from !== undefined) area += `L${x} 20L${from} 20Z`;
    from = undefined;
  };
  for (const [index, value] of values.entries()) {
    const x = samplesMax - values.length + index;
    if (value === null) {
      close(x - 1);
      continue;
    }
    const point = `${x} ${(19 - (value / top) * 18).toFixed(2)}`;
    line += `${from === undefined ? 'M' : 'L'}${point}`;
    area += `${from === undefined ? 'M' : 'L'}${point}`;
    from ??= x;
  }
  close(samplesMax - 1);
  const [areaPath, linePath] = svg.children;
  attribute(areaPath, 'd', area);
  attribute(linePath, 'd', line);
  attribute(svg, 'aria-label', label);
}
function reading(kind) {
  const text = element('span', {}, element('span', { class: 'value' }), element('span', { class: 'limit' }));
  return element('span', { class: 'reading' }, plot(kind), text);
}
function showCpu(cell, name, who) {
  const values = series.get(name)?.cpu ?? [];
  const now = values.at(-1) ?? null;
  const most = Math.max(0, ...values.map((value) => value ?? 0));
  draw(cell.querySelector('svg'), values, 5, `CPU of ${who}: ${percent(now)}, at most ${percent(most)} lately`);
  put(cell.querySelector('.value'), percent(now));
}
function showMemory(cell, name, who) {
  const { memory = [], limit = 0 } = series.get(name) ?? {};
  const now = memory.at(-1);
  const text = now === undefined ? '–' : bytes(now);
  const of = limit > 0 ? `of ${bytes(limit)}` : '';
  const most = bytes(Math.max(0, ...memory.map((value) => value ?? 0)));
  draw(cell.querySelector('svg'), memory, 1 << 20, `Memory of ${who}: ${text} ${of}, at most ${most} lately`);
  put(cell.querySelector('.value'), text);
  put(cell.querySelector('.limit'), of);
}
function sample(name, [cpu, memory, limit, pids], gap) {
  const one = series.get(name) ?? { cpu: [], memory: [] };
  if (gap && one.cpu.length > 0) {
    one.cpu.push(null);
    one.memory.push(null);
  }
  one.cpu.push(cpu);
  one.memory.push(memory);
  while (one.cpu.length > samplesMax) one.cpu.shift();
  while (one.memory.length > samplesMax) one.memory.shift();
  series.set(name, Object.assign(one, { limit, pids }));
}

// What scrolls has to be reached by keyboard.
byId('events-scroll').tabIndex = 0;
// Laid out as blocks, on a phone, a table's parts lose what they are in some browsers: it is said once more.
for (const [parts, role] of [
  ['table', 'table'],
  ['thead, tbody', 'rowgroup'],
  ['tr', 'row'],
  ['th', 'columnheader'],
])
  for (const part of document.querySelectorAll(parts)) part.setAttribute('role', role);

// Sections

const chosen = () => byId('namespace').value;
const wanted = () => byId('filter').value.trim().toLowerCase();
const shown = (namespace, ...texts) =>
  (chosen() === '' || chosen() === namespace) &&
  (wanted() === '' || texts.some((text) => String(text).toLowerCase().includes(wanted())));

/** Shape and word say what the colour says. */
const marks = {
  running: '▶',
  paused: '⏸',
  pausing: '⏸',
  created: '○',
  stopped: '■',
  failed: '✕',
  'no task': '·',
  unknown: '?',
};
const order = ['running', 'pausing', 'paused', 'created', 'stopped'];
const rank = ({ status }) => (order.indexOf(status) + order.length + 1) % (order.length + 1);

function makeContainer() {
  const cell = (properties, ...children) => element('td', { role: 'cell', ...properties }, ...children);
  return element(
    'tr',
    { role: 'row' },
    cell(
      { class: 'state' },
      element('span', { class: 'mark', 'aria-hidden': 'true' }),
      ' ',
      element('span', { class: 'words' }),
    ),
    cell(
      { class: 'who' },
      element('bdi', { class: 'name' }),
      ' ',
      element('bdi', { class: 'sub' }),
      element('details', {}, element('summary'), element('dl')),
    ),
    cell({ class: 'image' }, element('bdi', { class: 'text' }), element('div', { class: 'sub runtime text' })),
    cell({ class: 'number cpu', 'data-label': 'CPU' }, reading('cpu')),
    cell({ class: 'number memory', 'data-label': 'Memory' }, reading('memory')),
    cell({ class: 'number pids', 'data-label': 'Processes' }),
    cell({ class: 'number made', 'data-label': 'Made' }),
  );
}
function updateContainer(row, { namespace, id, image, runtime, labels, created, status, pid, exit }) {
  const failed = status === 'stopped' && exit !== 0;
  const stateCell = row.querySelector('.state');
  attribute(stateCell, 'data-state', failed ? 'failed' : status);
  put(stateCell.querySelector('.mark'), failed ? marks.failed : (marks[status] ?? marks.unknown));
  put(stateCell.querySelector('.words'), status === 'stopped' ? `stopped, code ${exit}` : status);
  put(row.querySelector('.name'), id);
  put(row.querySelector('.who .sub'), `${namespace}${pid && status !== 'stopped' ? ` · pid ${pid}` : ''}`);
  putName(row.querySelector('.image bdi'), image || '–');
  put(row.querySelector('.runtime'), runtime);
  const pairs = Object.entries(labels);
  const details = row.querySelector('details');
  details.hidden = pairs.length === 0;
  put(details.querySelector('summary'), pairs.length === 1 ? '1 label' : `${pairs.length} labels`);
  const terms = details.querySelector('dl');
  const text = JSON.stringify(pairs);
  if (terms.dataset.text !== text) {
    terms.dataset.text = text;
    terms.replaceChildren(
      ...pairs.flatMap(([name, value]) => [element('dt', {}, visible(name)), element('dd', {}, visible(value) || '–')]),
    );
  }
  const key = `${namespace}/${id}`;
  const used = series.has(key) && status !== 'stopped';
  for (const kind of ['cpu', 'memory', 'pids']) row.querySelector(`td.${kind}`).toggleAttribute('data-none', !used);
  for (const one of row.querySelectorAll('.reading')) one.hidden = !used;
  if (used) {
    showCpu(row.querySelector('td.cpu'), key, visible(id));
    showMemory(row.querySelector('td.memory'), key, visible(id));
  }
  put(row.querySelector('td.pids'), used ? series.get(key).pids : '–');
  put(row.querySelector('td.made'), age(created));
}
function showContainers() {
  const items = state.containers
    .filter(({ namespace, id, image }) => shown(namespace, id, image))
    .sort((a, b) => rank(a) - rank(b) || a.namespace.localeCompare(b.namespace) || a.id.localeCompare(b.id));
  section('containers', items, ({ namespace, id }) => `${namespace}/${id}`, makeContainer, updateContainer);
  byId('containers').hidden = items.length === 0;
}

function showImages() {
  const items = state.images
    .filter(({ namespace, name }) => shown(namespace, name))
    .sort((a, b) => b.updated - a.updated || a.name.localeCompare(b.name));
  section(
    'images',
    items,
    ({ namespace, name }) => `${namespace} ${name}`,
    () => element('li', {}, element('bdi', { class: 'name text' }), element('span', { class: 'sub text' })),
    (row, { namespace, name, digest, updated }) => {
      putName(row.children[0], name);
      put(row.children[1], `${namespace} · ${digest.slice(0, 19)} · ${age(updated)}`);
    },
  );
}

const amountOf = (done, total) =>
  total > 0 ? `${bytes(Math.min(done, total))} of ${bytes(total)}` : done > 0 ? bytes(done) : '';
/** A digest is told apart by its beginning. */
const digests = /(sha256:[0-9a-f]{12})[0-9a-f]+/g;
function updatePart(row, { name, event, progress, total }) {
  const [label, word, bar, amount] = row.children;
  putName(label, name.replace(digests, '$1'));
  put(word, event);
  bar.hidden = total === 0;
  if (total > 0) {
    bar.max = total;
    bar.value = Math.min(progress, total);
  }
  attribute(bar, 'aria-label', visible(`${name}: ${event}`));
  put(amount, amountOf(progress, total));
}
function showTransfers() {
  const { transfers, ingests } = state.transfers;
  const whole = transfers.map(({ namespace, from, to, started, parts }) => ({
    key: `${namespace} ${from} ${to} ${started}`,
    namespace,
    title: `${from} → ${to}`,
    started,
    parts,
  }));
  const single = ingests.map(({ namespace, ref, offset, total, started }) => ({
    key: `${namespace} ${ref}`,
    namespace,
    title: ref.replace(digests, '$1'),
    started,
    single: true,
    parts: [{ name: ref, event: 'receiving', progress: offset, total }],
  }));
  const items = [...whole, ...single].filter(({ namespace, title }) => shown(namespace, title));
  section(
    'transfers',
    items,
    ({ key }) => key,
    () =>
      element(
        'li',
        { class: 'transfer' },
        element('div', { class: 'head' }, element('bdi', { class: 'name' }), element('span', { class: 'sub' })),
        element('progress', {}),
        element('ul', { class: 'plain parts' }),
      ),
    (row, { namespace, title, started, parts, single = false }) => {
      const total = parts.reduce((sum, part) => sum + part.total, 0);
      const done = parts.reduce((sum, part) => sum + Math.min(part.progress, part.total), 0);
      putName(row.querySelector('.name'), title);
      put(row.querySelector('.sub'), `${namespace} · for ${age(started)} · ${amountOf(done, total)}`);
      const bar = row.querySelector('progress');
      if (total > 0) {
        bar.max = total;
        bar.value = done;
      } else bar.removeAttribute('value');
      attribute(bar, 'aria-label', visible(title));
      list(
        row.querySelector('.parts'),
        single ? [] : parts.slice(0, rowsMax),
        ({ name }) => name,
        () =>
          element(
            'li',
            {},
            element('bdi', { class: 'mono text' }),
            element('span', {}),
            element('progress', {}),
            element('span', { class: 'number sub' }),
          ),
        updatePart,
      );
    },
  );
}

function sentence(detail) {
  if (detail === null || typeof detail !== 'object') return '';
  return Object.entries(detail)
    .filter(([, value]) => value !== '' && value !== null)
    .map(([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join('  ');
}
function showEvents() {
  const items = state.events
    .map((event, index) => ({ ...event, index }))
    .filter(({ namespace, topic, detail }) => shown(namespace, topic, sentence(detail)))
    .reverse();
  section(
    'events',
    items,
    ({ at, topic, namespace, detail }) => `${at} ${topic} ${namespace} ${JSON.stringify(detail)}`,
    ({ at, topic, namespace, detail }) =>
      element(
        'li',
        {},
        element('time', { class: 'sub', datetime: new Date(at).toISOString() }, clock(at)),
        element(
          'div',
          {},
          element('bdi', {}, visible(topic)),
          ' ',
          element('bdi', { class: 'sub' }, visible(namespace)),
          element('div', { class: 'sub mono text' }, visible(sentence(detail)).slice(0, 400)),
        ),
      ),
    () => undefined,
  );
}

function showDeprecations() {
  section(
    'deprecations',
    state.deprecations,
    ({ id }) => id,
    () =>
      element(
        'li',
        {},
        element('span', { 'aria-hidden': 'true' }, '⚠ '),
        element('bdi', { class: 'mono text' }),
        element('span', { class: 'what text' }),
        element('span', { class: 'sub' }),
      ),
    (row, { id, message, last }) => {
      put(row.children[1], id);
      put(row.children[2], message);
      put(row.children[3], `last ${age(last)} ago`);
    },
  );
}

function showNamespaces() {
  const names = [...new Set([...state.containers, ...state.images].map(({ namespace }) => namespace))].sort();
  const select = byId('namespace');
  const options = ['', ...names];
  if ([...select.options].map(({ value }) => value).join('\n') === options.join('\n')) return;
  const before = select.value;
  select.replaceChildren(
    ...options.map((name) => element('option', { value: name }, name === '' ? 'all namespaces' : visible(name))),
  );
  select.value = options.includes(before) ? before : '';
}

function showDaemon() {
  if (!state.daemon) return;
  const { version, revision, pid, began } = state.daemon;
  put(byId('version'), `${version}${revision ? ` · ${revision.slice(0, 7)}` : ''} · pid ${pid}`);
  put(byId('uptime'), age(began));
}
for (const kind of ['cpu', 'memory']) byId(`own-${kind}`).replaceChildren(reading(kind));
function showProcess({ sample: own, descriptors }, gap) {
  sample('', own, gap);
  showCpu(byId('own-cpu'), '', 'the daemon');
  showMemory(byId('own-memory'), '', 'the daemon');
  put(byId('own-files'), descriptors);
}

// The stream

const show = {
  daemon: showDaemon,
  containers: () => {
    showNamespaces();
    showContainers();
  },
  images: () => {
    showNamespaces();
    showImages();
  },
  transfers: showTransfers,
  events: showEvents,
  deprecations: showDeprecations,
};
let source;
let paused = false;
let gaps = new Set();

function linkIs(name, mark, words) {
  const line = byId('link');
  attribute(line, 'data-state', name);
  put(line.querySelector('.mark'), mark);
  put(line.querySelector('.words'), words);
}
function connect() {
  if (source || paused || document.hidden) return;
  source = new EventSource('events');
  gaps = new Set(['usage', 'process']);
  source.onopen = () => linkIs('live', '●', 'Live');
  source.onerror = () => linkIs('lost', '✕', 'Not connected');
  for (const [name, update] of Object.entries(show)) {
    source.addEventListener(name, ({ data }) => {
      state[name] = JSON.parse(data);
      update();
    });
  }
  source.addEventListener('usage', ({ data }) => {
    const { samples } = JSON.parse(data);
    for (const name of series.keys()) if (name !== '' && !(name in samples)) series.delete(name);
    for (const [name, one] of Object.entries(samples)) sample(name, one, gaps.has('usage'));
    gaps.delete('usage');
    showContainers();
    showDaemon();
  });
  source.addEventListener('process', ({ data }) => {
    showProcess(JSON.parse(data), gaps.has('process'));
    gaps.delete('process');
  });
}
function disconnect(mark, words) {
  source?.close();
  source = undefined;
  linkIs('paused', mark, words);
}

byId('pause').addEventListener('click', () => {
  paused = !paused;
  byId('pause').setAttribute('aria-pressed', String(paused));
  if (paused) disconnect('❚❚', 'Paused');
  else connect();
});
// Nobody looks at a page in the background: then nothing is read for it.
document.addEventListener('visibilitychange', () => {
  if (document.hidden && !paused) disconnect('❚❚', 'Waiting');
  else connect();
});
for (const id of ['namespace', 'filter']) {
  byId(id).addEventListener('input', () => {
    showContainers();
    showImages();
    showTransfers();
    showEvents();
  });
}
document.querySelector('form').addEventListener('submit', (event) => event.preventDefault());
for (const update of Object.values(show)) update();
connect();
