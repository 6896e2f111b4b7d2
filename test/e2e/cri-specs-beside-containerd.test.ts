// The same pods and containers here and under containerd 2.3.4: specifications, statuses, refusals and what is found inside, side by side.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { removeCgroups } from '../fault/survey.ts';
import { CriTwins } from '../lib/cri-twins.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';
import {
  imageCases,
  imageVolumeCases,
  podCases,
  resourceCases,
  securityCases,
  userNamespaceCases,
} from '../lib/twin-cases.ts';
import { fillTwinImages, makeHost, writeCdi } from '../lib/twin-host.ts';
import { differences, type TwinCase, TwinTeller } from '../lib/twin-story.ts';

const newRunc = path.resolve(import.meta.dirname, '../../.cache/go-bin/new/runc');

/** What is otherwise here on purpose: by case and place, and why. */
const otherwise: readonly [asked: RegExp, place: RegExp, why: string][] = [
  [/^capabilities: (with|unknown)/, /capabilities\./, 'CAP_ may be said, and what the kernel has not is left out'],
  [/^user: negative groups|^limits: negative/, /./, 'refused; containerd makes another number of it'],
  [/^device: permissions $/, /access$/, 'a rule without access is one of none'],
  [/^seccomp: |^apparmor: 9|^mount: (link|beneath|of nothing|with a)|^ids: no length/, /error\.message$/, 'words'],
  [/^mount: on the way out/, /destination$/, 'as the kernel has it'],
  [/^volume: /, /(hostPath|host_path|source)$/, 'the directory is the daemon’s own'],
  [
    /^image|hostile/,
    /mounts\.\d+\.(destination|source)$/,
    'an image’s volumes: their order is chance, ours are written plain',
  ],
  [/^a base specification/, /mounts|terminal/, 'cgroups are mounted once; a terminal has who asks for one'],
  [/pod/, /apparmorProfile$/, 'a pod’s process is confined too'],
  [/^pod: sysctls/, /onfig\.linux\.sysctls/, 'containerd writes what it adds into the configuration'],
  [/^pod: limits/, /^info\.info\.(overhead|resources)/, 'told before they are changed, too'],
  [/^ids: a pod$/, /namespaces\.\d\.path$/, 'the runtime makes what containerd makes before'],
  [/^ids: a runtime that cannot/, /./, 'found out before it is started'],
];

describe('CRI beside containerd', { skip: CriTwins.missing() }, () => {
  const temp = makeTempDir('twins');
  const host = path.join(temp.path, 'host');
  const withMapping = existsSync(newRunc);
  const handler = (name: string, keys = '', options = ''): string => `
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.${name}]
  runtime_type = 'io.containerd.runc.v2'
${keys}
${options && `[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.${name}.options]\n${options}\n`}`;
  const lab = new CriTwins(
    temp.path,
    [
      { bridge: 'gantrytwin0', subnet: '10.231.0.0/16' },
      { bridge: 'gantrytwin1', subnet: '10.232.0.0/16' },
    ],
    `device_ownership_from_security_context = true
cdi_spec_dirs = ['${temp.path}/cdi']
${handler('runc')}
${withMapping ? handler('newer', '', `  BinaryName = '${newRunc}'`) : ''}
${handler('picky', "privileged_without_host_devices = true\npod_annotations = ['pod.test/*', 'exact']\ncontainer_annotations = ['container.test/*', '*.deep', 'a/?/c']")}
${handler('open', 'privileged_without_host_devices = true\nprivileged_without_host_devices_all_devices_allowed = true')}
${handler('based', `base_runtime_spec = '${temp.path}/base.json'`)}`,
  );
  const tellers = lab.twins.map((twin) => new TwinTeller(twin)) as [TwinTeller, TwinTeller];
  let takeAway = async (): Promise<void> => undefined;

  before(async () => {
    takeAway = await makeHost(host);
    writeCdi(path.join(temp.path, 'cdi'), host);
    const bundle = path.join(temp.path, 'bundle');
    mkdirSync(bundle);
    await run('runc', ['spec'], { cwd: bundle });
    const base = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8'));
    // As `ctr oci spec` writes it.
    base.linux.cgroupsPath = '/default';
    writeFileSync(path.join(temp.path, 'base.json'), JSON.stringify(base));
    let images: string[] = [];
    await lab.start(async (registry) => {
      images = await fillTwinImages(temp.path, host, registry);
    });
    for (const image of images)
      await Promise.all(lab.twins.map((twin) => twin.images.pullImage({ image: { image } }, { timeoutMs: 120_000 })));
  });

  after(async () => {
    await lab.close();
    removeCgroups('gantry-twins');
    await takeAway();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  /** Asks both, some cases at a time, and holds what they tell against each other. */
  async function same(cases: readonly TwinCase[], lanes = 4): Promise<void> {
    const left = [...cases];
    const found: string[] = [];
    const work = async (): Promise<void> => {
      for (let asked = left.shift(); asked; asked = left.shift()) {
        const current = asked;
        const [ours, theirs] = await Promise.all(tellers.map((teller) => teller.tell(current)));
        assert.ok(ours!.size > 0 && theirs!.size > 0, asked.name);
        const allowed = otherwise.filter(([name]) => name.test(current.name));
        const rest = differences(ours!, theirs!).filter(
          (difference) => !allowed.some(([, place]) => place.test(difference.split(': ')[0]!)),
        );
        if (rest.length > 0) found.push(`${asked.name}\n  ${rest.join('\n  ')}`);
      }
    };
    await Promise.all(Array.from({ length: lanes }, work));
    assert.deepEqual(found, [], `\n${found.join('\n')}`);
  }

  test('capabilities, privileges, users, paths, profiles, namespaces', () => same(securityCases(host)));
  test('limits, devices, mounts', () => same(resourceCases(host)));
  // One after the other: containerd mounts an image where another container of the pod has it mounted at the same moment.
  test('images as volumes', () => same(imageVolumeCases(host), 1));
  test('images, environments, names, base specifications', () => same(imageCases(host)));
  test('pods', () => same(podCases(host)));
  test(
    'user namespaces',
    { skip: withMapping ? false : 'a runc that maps the ids of mounts is not in .cache/go-bin/new' },
    () => same(userNamespaceCases(host)),
  );
  test('nothing was made where links of images lead', () => {
    assert.deepEqual(readdirSync(path.join(host, 'empty')), []);
  });
});
