import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { renderTemplate } from './conf-template.ts';
import { readNetworkList } from './network-config.ts';

const values = {
  PodCIDR: '10.9.0.0/16',
  PodCIDRRanges: ['10.9.0.0/16', 'fd00:9::/64'],
  Routes: ['0.0.0.0/0', '::/0'],
};
const render = (source: string) => renderTemplate('net.template', source, values);

test('the templates that nodes are set up with become configurations', () => {
  const source = `{
  "cniVersion": "1.0.0", "name": "pods",
  {{- /* one bridge */ -}}
  "plugins": [{"type": "bridge", "ipam": {"type": "host-local",
    "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
    "routes": [{{ range $i, $route := .Routes }}{{ if $i }}, {{ end }}{"dst": "{{ $route }}"}{{ end }}]}}]
}`;
  assert.deepEqual(JSON.parse(render(source)).plugins[0].ipam, {
    type: 'host-local',
    ranges: [[{ subnet: '10.9.0.0/16' }], [{ subnet: 'fd00:9::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  });
  assert.equal(render('{"subnet": "{{.PodCIDR}}"}'), '{"subnet": "10.9.0.0/16"}');
  // What containerd 2.3.4 made of the same text.
  assert.equal(
    render(
      'x {{.PodCIDR}} {{range $i, $r := .Routes}}{{if $i}}, {{end}}{"dst":"{{$r}}"}{{end}} {{- /* c */ -}} {{range .PodCIDRRanges}}[{"subnet": "{{.}}"}]{{end}}\n',
    ),
    'x 10.9.0.0/16 {"dst":"0.0.0.0/0"}, {"dst":"::/0"}[{"subnet": "10.9.0.0/16"}][{"subnet": "fd00:9::/64"}]\n',
  );
});

test('conditions, functions and values', () => {
  const cases: [string, string][] = [
    ['{{if .Routes}}yes{{else}}no{{end}}', 'yes'],
    ['{{if eq .PodCIDR "x"}}a{{else if len .Routes}}b{{else}}c{{end}}', 'b'],
    ['{{if not .Routes}}a{{end}}{{index .PodCIDRRanges 1}} {{len .Routes}}', 'fd00:9::/64 2'],
    ['{{range $r := .Routes}}{{$r}} {{$.PodCIDR}};{{end}}', '0.0.0.0/0 10.9.0.0/16;::/0 10.9.0.0/16;'],
    ['{{.Routes}}', '[0.0.0.0/0 ::/0]'],
  ];
  for (const [source, wanted] of cases) assert.equal(render(source), wanted);
  assert.equal(renderTemplate('t', '{{range .Routes}}a{{else}}none{{end}}', { ...values, Routes: [] }), 'none');
});

test('what is not understood is refused, with the line', () => {
  const cases: [string, RegExp][] = [
    ['{{join .Routes}}', /^template: net\.template:1: function "join" not defined$/],
    ['\n\n{{.Nope}}', /^template: net\.template:3: can't evaluate field Nope$/],
    ['{{.PodCIDR', /:1: unclosed action/],
    ['{{if .PodCIDR}}', /unexpected EOF/],
    ['{{end}}', /unexpected \{\{end\}\}/],
    ['{{.PodCIDR | printf "%s"}}', /is not supported/],
    ['{{range .PodCIDR}}{{end}}', /can't iterate over/],
    ['{{index .Routes 7}}', /index out of range/],
    ['{{with .PodCIDR}}{{.}}{{end}}', /function "with" not defined/],
    ['{{$x}}', /undefined variable/],
  ];
  for (const [source, reason] of cases)
    assert.throws(() => render(source), { name: 'StatusError', message: reason }, source);
});

test('the example in the documentation becomes a network', () => {
  const page = readFileSync(path.resolve(import.meta.dirname, '../../../docs/networking.md'), 'utf8');
  const [, example = ''] = /```\n(\{[\s\S]*?\n\})\n```/.exec(page) ?? [];
  const { name, plugins } = readNetworkList(render(example));
  assert.deepEqual([name, plugins.map(({ type }) => type)], ['pods', ['bridge', 'portmap']]);
  assert.deepEqual(plugins[0]?.['ipam'], {
    type: 'host-local',
    ranges: [[{ subnet: '10.9.0.0/16' }], [{ subnet: 'fd00:9::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  });
});
