import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { defaultSpec } from '../spec/default-spec.ts';
import { CdiDirectories } from './cdi-directories.ts';
import { annotatedDevices, isDeviceName, parseDeviceName } from './device-name.ts';

describe('CDI', () => {
  const top = mkdtempSync(path.join(os.tmpdir(), 'gantry-cdi-'));
  const installed = path.join(top, 'etc');
  const made = path.join(top, 'run');
  let told: string[] = [];
  let cdi: CdiDirectories;

  beforeEach(() => {
    for (const directory of [installed, made]) {
      rmSync(directory, { recursive: true, force: true });
      mkdirSync(directory);
    }
    told = [];
    cdi = new CdiDirectories([installed, made], (file, problem) => told.push(`${path.basename(file)}: ${problem}`));
  });
  after(() => rmSync(top, { recursive: true }));

  const write = (file: string, document: unknown) =>
    writeFileSync(path.join(top, file), typeof document === 'string' ? document : JSON.stringify(document));
  const withEnv = (kind: string, name: string, value: string) => ({
    cdiVersion: '0.5.0',
    kind,
    devices: [{ name, containerEdits: { env: [`V=${value}`] } }],
  });
  const inject = async (...devices: string[]) => {
    const spec = defaultSpec('ns', 'c');
    await cdi.inject(spec, devices);
    return spec;
  };

  test('names', () => {
    assert.deepEqual(parseDeviceName('vendor.com/gpu=0:1'), { vendor: 'vendor.com', class: 'gpu', device: '0:1' });
    for (const good of ['a/b=c', 'v-1.x/cl.a_ss=GPU-0', 'v/c=0']) assert.ok(isDeviceName(good), good);
    for (const bad of [
      '',
      '/dev/null',
      'gpu=0',
      'v/=0',
      'v/c=',
      '1v/c=0',
      'v/c-=0',
      'v/c=-0',
      'v/c=a/b',
      'v /c=0',
      'v/c=0:',
    ]) {
      assert.ok(!isDeviceName(bad), bad);
    }
    assert.deepEqual(annotatedDevices({ 'cdi.k8s.io/x_y': 'v/c=0,v/c=1', other: 'v/c=2' }), ['v/c=0', 'v/c=1']);
    assert.throws(
      () => annotatedDevices({ 'cdi.k8s.io/x': 'v/c=0,' }),
      (error) => hasCode(error, Code.InvalidArgument),
    );
  });

  test('every kind of edit, from JSON and YAML, those of the document once', async () => {
    execFileSync('mkfifo', [path.join(top, 'pipe')]);
    write(
      'etc/all.yaml',
      `cdiVersion: 1.1.0
kind: vendor.com/net
containerEdits:
  env: [ONCE=yes, PATH=/vendor]
  hooks:
    - { hookName: createContainer, path: /bin/hook, args: [hook, a], env: [X=y], timeout: 5 }
devices:
  - name: one
    containerEdits:
      deviceNodes:
        - { path: /dev/vendor0, hostPath: /dev/null, permissions: rw, fileMode: 0o600 }
        - { path: /dev/vendor1, type: c, major: 77, minor: 8, uid: 5, permissions: m }
        - { path: /dev/pipe, hostPath: ${top}/pipe }
      netDevices: [{ hostInterfaceName: eth7, name: net0 }]
      mounts:
        - { hostPath: /lib/vendor, containerPath: /usr/lib/deep/vendor, options: [ro, bind] }
        - { hostPath: /run/x, containerPath: /dev/shm, type: bind, options: [bind] }
      intelRdt: { closID: fast, schemata: ["L3:0=f"] }
      additionalGids: [0, 44]
  - name: two
    containerEdits: { env: [TWO=2], additionalGids: [44] }
`,
    );
    const spec = await inject('vendor.com/net=one', 'vendor.com/net=two');
    const { process, linux, mounts = [], hooks } = spec;
    assert.deepEqual(
      process!.env!.filter((text) => /^(ONCE|PATH|TWO)=/.test(text)),
      ['ONCE=yes', 'PATH=/vendor', 'TWO=2'],
    );
    assert.deepEqual(hooks, {
      createContainer: [{ path: '/bin/hook', args: ['hook', 'a'], env: ['X=y'], timeout: 5 }],
    });
    assert.deepEqual(linux!.devices, [
      { path: '/dev/vendor0', type: 'c', major: 1, minor: 3, fileMode: 0o600 },
      { path: '/dev/vendor1', type: 'c', major: 77, minor: 8, uid: 5 },
      { path: '/dev/pipe', type: 'p', major: 0, minor: 0, fileMode: statSync(path.join(top, 'pipe')).mode & 0o777 },
    ]);
    assert.deepEqual(linux!.resources!.devices!.slice(-2), [
      { allow: true, type: 'c', major: 1, minor: 3, access: 'rw' },
      { allow: true, type: 'c', major: 77, minor: 8, access: 'm' },
    ]);
    assert.deepEqual(linux!.netDevices, { eth7: { name: 'net0' } });
    assert.deepEqual(linux!.intelRdt, { closID: 'fast', schemata: ['L3:0=f'] });
    assert.deepEqual(
      process!.user.additionalGids?.filter((gid) => gid === 44 || gid === 0),
      [44],
    );
    assert.deepEqual(mounts.at(-1), {
      destination: '/usr/lib/deep/vendor',
      source: '/lib/vendor',
      options: ['ro', 'bind'],
    });
    assert.deepEqual(
      mounts.filter(({ destination }) => destination === '/dev/shm'),
      [{ destination: '/dev/shm', source: '/run/x', type: 'bind', options: ['bind'] }],
    );
  });

  test('what a node leaves out is the host’s: type, numbers and mode; one that says type and number needs no host', async () => {
    const nodes = [
      { path: '/dev/x', hostPath: '/dev/null' },
      { path: '/dev/y', hostPath: '/dev/null', major: 9, minor: 8 },
      { path: '/dev/z', type: 'b', major: 7, minor: 6 },
      { path: '/dev/null', type: 'c', major: 5, minor: 4 },
    ];
    write('etc/a.json', {
      cdiVersion: '0.5.0',
      kind: 'v/c',
      devices: [
        { name: 'd', containerEdits: { deviceNodes: nodes } },
        { name: 'other', containerEdits: { deviceNodes: [{ path: '/dev/null', type: 'b' }] } },
        { name: 'file', containerEdits: { deviceNodes: [{ path: '/etc/passwd' }] } },
      ],
    });
    const { linux } = await inject('v/c=d');
    assert.deepEqual(linux!.devices, [
      { path: '/dev/x', type: 'c', major: 1, minor: 3, fileMode: 0o666 },
      { path: '/dev/y', type: 'c', major: 9, minor: 8, fileMode: 0o666 },
      { path: '/dev/z', type: 'b', major: 7, minor: 6 },
      { path: '/dev/null', type: 'c', major: 5, minor: 4, fileMode: 0o666 },
    ]);
    await assert.rejects(inject('v/c=other'), /host type mismatch \(b, c\)/);
    await assert.rejects(inject('v/c=file'), /failed to stat CDI host device "\/etc\/passwd": not a device node/);
  });

  test('YAML as Go reads it: numbers for names, modes with a leading zero, also in a file that says JSON', async () => {
    const document = `cdiVersion: v0.6.0
kind: vendor.com/yaml
annotations: { number: 1 }
devices:
  - name: 0
    containerEdits:
      deviceNodes: [{ path: /dev/null, fileMode: 0640 }]
---
another: document
`;
    write('etc/a.json', document);
    assert.deepEqual((await inject('vendor.com/yaml=0')).linux!.devices?.[0]?.fileMode, 0o640);
    write('etc/a.json', document.replace('0640', '4294967296'));
    await assert.rejects(inject('vendor.com/yaml=0'), /unresolvable/);
    assert.match(told.join('\n'), /fileMode: 4294967296 is more than 4294967295/);
  });

  test('mounts come after those that they lie in', async () => {
    const mounts = ['/a/b/', '/a', '/'].map((containerPath) => ({ hostPath: '/x', containerPath }));
    write('etc/a.json', { cdiVersion: '0.5.0', kind: 'v/c', devices: [{ name: 'd', containerEdits: { mounts } }] });
    const spec = defaultSpec('ns', 'c');
    spec.mounts = [{ destination: '/a/b', source: 'before' }];
    // No more is done for them in a user namespace of the container's own than the document says.
    spec.linux!.namespaces = [...(spec.linux!.namespaces ?? []), { type: 'user' }];
    await cdi.inject(spec, ['v/c=d']);
    assert.deepEqual(spec.mounts, [
      { destination: '/a', source: '/x' },
      { destination: '/', source: '/x' },
      { destination: '/a/b', source: 'before' },
      { destination: '/a/b/', source: '/x' },
    ]);
  });

  test('a device belongs to the process that may not be root', async () => {
    write('etc/a.json', {
      cdiVersion: '0.5.0',
      kind: 'v/c',
      devices: [{ name: '0', containerEdits: { deviceNodes: [{ path: '/dev/null' }] } }],
    });
    const spec = defaultSpec('ns', 'c');
    spec.process!.user = { uid: 1000, gid: 100 };
    await cdi.inject(spec, ['v/c=0']);
    assert.deepEqual(spec.linux!.devices, [
      { path: '/dev/null', type: 'c', major: 1, minor: 3, fileMode: 0o666, uid: 1000, gid: 100 },
    ]);
  });

  test('later directories come first, changes are seen at once, equals are in conflict', async () => {
    const value = async () => (await inject('v/c=0')).process!.env!.find((text) => text.startsWith('V='));
    await assert.rejects(
      value(),
      /^StatusError: CDI device injection failed: unresolvable CDI devices v\/c=0: not found$/,
    );
    write('etc/a.json', withEnv('v/c', '0', 'installed'));
    assert.equal(await value(), 'V=installed');
    write('run/b.json', withEnv('v/c', '0', 'made'));
    assert.equal(await value(), 'V=made');
    write('run/b.json', withEnv('v/c', '0', 'made again, and longer'));
    assert.equal(await value(), 'V=made again, and longer');
    write('run/c.json', withEnv('v/c', '0', 'other'));
    await assert.rejects(value(), (error) => hasCode(error, Code.NotFound));
    await assert.rejects(value(), (error) => hasCode(error, Code.NotFound));
    assert.equal(told.length, 2, 'each file is told of once');
    assert.match(told[0]!, /conflicting device "v\/c=0" \(specs ".*c\.json", ".*b\.json"\)/);
    rmSync(path.join(made, 'b.json'));
    assert.equal(await value(), 'V=other');
    assert.deepEqual(await cdi.list(), ['v/c=0']);
  });

  test('what is wrong with a file is said, and the others are used', async () => {
    write('etc/good.json', withEnv('v/good', '0', 'x'));
    const edits = { env: ['A=b'] };
    const device = { name: 'd', containerEdits: edits };
    const bad: [string, unknown, RegExp][] = [
      ['not-json', '{', /JSON/],
      ['version', { cdiVersion: '9.9', kind: 'v/c', devices: [device] }, /invalid version "9\.9"/],
      ['kind', { cdiVersion: '0.5.0', kind: 'c', devices: [device] }, /kind "c": invalid vendor/],
      ['no-devices', { cdiVersion: '0.5.0', kind: 'v/c', devices: [] }, /no devices/],
      ['twice', { cdiVersion: '0.5.0', kind: 'v/c', devices: [device, device] }, /multiple device "d"/],
      [
        'empty',
        { cdiVersion: '0.5.0', kind: 'v/c', devices: [{ name: 'd', containerEdits: {} }] },
        /empty device edits/,
      ],
      ['unknown', { cdiVersion: '0.5.0', kind: 'v/c', devices: [device], more: 1 }, /unknown field "more"/],
      [
        'env',
        { cdiVersion: '0.5.0', kind: 'v/c', devices: [{ name: 'd', containerEdits: { env: ['=x'] } }] },
        /devices\[0\]\.containerEdits\.env\[0\]: invalid environment/,
      ],
      [
        'newer',
        { cdiVersion: '0.6.0', kind: 'v/c', devices: [{ name: 'd', containerEdits: { additionalGids: [1] } }] },
        /at least v0\.7\.0/,
      ],
      [
        'type',
        {
          cdiVersion: '0.5.0',
          kind: 'v/c',
          devices: [{ name: 'd', containerEdits: { deviceNodes: [{ path: '/x', type: 'q' }] } }],
        },
        /invalid type "q"/,
      ],
      [
        'hook',
        {
          cdiVersion: '0.5.0',
          kind: 'v/c',
          devices: [{ name: 'd', containerEdits: { hooks: [{ hookName: 'x', path: '/x' }] } }],
        },
        /invalid hook name "x"/,
      ],
      [
        'rdt',
        {
          cdiVersion: '0.7.0',
          kind: 'v/c',
          devices: [{ name: 'd', containerEdits: { intelRdt: { closID: '../x' } } }],
        },
        /invalid ClosID/,
      ],
    ];
    for (const [name, document] of bad) write(`etc/${name}.json`, document);
    await inject('v/good=0');
    for (const [name, , pattern] of bad) {
      const problem = told.find((text) => text.startsWith(`${name}.json: failed to load CDI Spec: `));
      assert.match(problem ?? `${name}: nothing was told`, pattern);
    }
    assert.equal(told.length, bad.length);
  });

  test('a failed injection changes nothing', async () => {
    write('etc/a.json', {
      cdiVersion: '0.5.0',
      kind: 'v/c',
      containerEdits: { env: ['A=b'] },
      devices: [
        { name: 'gone', containerEdits: { deviceNodes: [{ path: '/dev/no-such-device' }] } },
        { name: 'other', containerEdits: { deviceNodes: [{ path: '/dev/null', type: 'b' }] } },
      ],
    });
    const spec = defaultSpec('ns', 'c');
    const before = structuredClone(spec);
    await assert.rejects(
      cdi.inject(spec, ['v/c=gone']),
      /failed to inject devices: failed to stat CDI host device "\/dev\/no-such-device": no such file/,
    );
    await assert.rejects(cdi.inject(spec, ['v/c=other']), /host type mismatch \(b, c\)/);
    await assert.rejects(cdi.inject(spec, ['v/c']), (error) => hasCode(error, Code.InvalidArgument));
    assert.deepEqual(spec, before);
  });
});
