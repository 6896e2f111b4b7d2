// The commands in docs/kubernetes.md, run one after the other on a node of their own: mount and network namespaces in which containerd, gantryd
// and the kubelet have their default places. With GANTRY_KUBELET the kubelet is a real one; its pod goes on through all of it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { CriLab, crictl } from '../lib/cri-lab.ts';
import { commandsOf, daemonPlaces, emptyPlaces, nodePrograms } from '../lib/documented-node.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { kernelSettings, TestKubelet } from '../lib/kubelet.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const top = path.resolve(import.meta.dirname, '../..');
const page = readFileSync(path.join(top, 'docs/kubernetes.md'), 'utf8');
const blocks = commandsOf(page);
const image = 'docker.io/test/busybox:1';

/** Default places; inside the namespace they are empty directories of the test's own. */
const places = [
  ...daemonPlaces,
  '/etc/cni',
  '/opt/cni',
  '/run/netns',
  '/var/lib/cni',
  '/var/lib/kubelet',
  '/etc/kubernetes',
  '/var/log/pods',
  '/var/log/containers',
];

const containerdConfig = `version = 3
# what would reach beyond this node
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri']
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '${image}'
[plugins.'io.containerd.cri.v1.runtime']
  # where this runs in a container itself
  restrict_oom_score_adj = true
`;

const network = {
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.206.0.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] },
    },
  ],
};

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
failSwapOn: false
cgroupsPerQOS: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 1Mi, nodefs.available: 1%, imagefs.available: 1%}
syncFrequency: 1s
`;

const script = 'echo begun; while :; do sleep 1; done';
const staticPod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'app', namespace: 'default' },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'main',
        image,
        command: ['sh', '-c', script],
        livenessProbe: { exec: { command: ['true'] }, periodSeconds: 1 },
      },
    ],
  },
};
const podConfig = {
  metadata: { name: 'app', namespace: 'default', uid: 'uid-app', attempt: 0 },
  log_directory: '/var/log/pods/app',
  linux: {},
};
const containerConfig = {
  metadata: { name: 'main' },
  image: { image },
  command: ['sh', '-c', script],
  log_path: 'main.log',
  linux: {},
};

for (const [how, kubelet] of [
  ['a pod of crictl', ''],
  ['a pod of a kubelet', TestKubelet.program()],
] as const) {
  const skip =
    CriLab.missing() || TestContainerd.missing(containerd2) || (kubelet === '' ? false : TestKubelet.missing());
  describe(`docs/kubernetes.md, ${how}`, { skip }, () => {
    const temp = makeTempDir('node');
    after(() => temp.remove());

    test('its commands lead there and back', async () => {
      const layout = path.join(temp.path, 'image');
      await buildImage(layout, [busyboxLayer], { Cmd: ['sleep', '100000'], Env: ['PATH=/bin'] });
      // CRI wants an image's whole name.
      const index = path.join(layout, 'index.json');
      writeFileSync(index, readFileSync(index, 'utf8').replace('"latest"', JSON.stringify(image)));
      await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.']);
      const programs = path.join(temp.path, 'bin');
      mkdirSync(programs);
      const program = (name: string, text: string) => writeFileSync(path.join(programs, name), text, { mode: 0o755 });
      nodePrograms(programs, 'crictl -r');
      program('crictl', `#!/bin/sh\nexec '${crictl}' -c "$NODE_DIR/crictl.yaml" "$@"\n`);
      program(
        'kubelet',
        kubelet === ''
          ? '#!/bin/sh\necho Started kubelet\nexec sleep 100000\n'
          : `#!/bin/sh\nexec '${kubelet}' --config /var/lib/kubelet/config.yaml --hostname-override node\n`,
      );
      const file = (name: string, content: string | object) => {
        const text = typeof content === 'string' ? content : JSON.stringify(content);
        return `mkdir -p "$(dirname ${name})"; cat > ${name} <<'END'\n${text.trimEnd()}\nEND`;
      };
      /** Says which the pod and its container are, and that the container can be worked with. */
      const look = [
        'echo "same $(crictl pods -q --no-trunc --state Ready) $(crictl ps -q --no-trunc)"',
        `test "$(crictl exec -s "$(crictl ps -q)" echo inside | head -n 1)" = inside`,
      ];
      const begin =
        kubelet === ''
          ? [
              'systemctl start kubelet',
              file('$NODE_DIR/pod.json', podConfig),
              file('$NODE_DIR/container.json', containerConfig),
              'crictl run --no-pull $NODE_DIR/container.json $NODE_DIR/pod.json >/dev/null',
            ]
          : [
              file('/etc/kubernetes/manifests/app.yaml', staticPod),
              'systemctl start kubelet',
              'for i in $(seq 600); do [ -n "$(crictl ps -q)" ] && break; sleep 0.1; done',
            ];
      const node = [
        'set -euo pipefail',
        // Mount points are made above the machine's directories, not in them: another test may make and remove the same.
        ...['etc', 'opt', 'run', 'var'].map((name) => {
          const [upper, work] = [`$NODE_DIR/above/${name}`, `$NODE_DIR/work/${name}`];
          return `mkdir -p ${upper} ${work}; mount -t overlay -o lowerdir=/${name},upperdir=${upper},workdir=${work} node /${name}`;
        }),
        ...emptyPlaces(places),
        ...(kubelet === '' ? [] : Object.entries(kernelSettings)).map(
          ([name, value], at) =>
            `echo ${value} >$NODE_DIR/setting-${at}; mount --bind $NODE_DIR/setting-${at} /proc/sys/${name}`,
        ),
        'ip link set lo up; ip link add node0 type bridge; ip addr add 192.0.2.10/24 dev node0; ip link set node0 up',
        'ip route add default dev node0',
        'mkdir -p /opt/cni/bin; ln -s /usr/lib/cni/* /opt/cni/bin/',
        file('/etc/cni/net.d/10-pods.conflist', network),
        file('/etc/containerd/config.toml', containerdConfig),
        file('/var/lib/kubelet/config.yaml', kubeletConfig),
        ': > $NODE_DIR/crictl.yaml; crictl config --set runtime-endpoint=unix:///run/containerd/containerd.sock',
        'systemctl start containerd',
        `ctr -n k8s.io images import '${layout}.tar' >/dev/null`,
        `for i in $(seq 600); do [ -n "$(crictl images -q ${image})" ] && break; sleep 0.1; done`,
        ...begin,
        ...look,
        ...blocks.flatMap((block) => [`set -x\n${block}\n{ set +x; } 2>/dev/null`]),
        ...look,
        'systemctl stop kubelet',
        'crictl rmp -a -f >/dev/null',
        'systemctl stop containerd',
      ];
      // Looked at too where it has changed hands: after the first verification, and when the kubelet has come back.
      const started = node.findIndex((line) => line.includes('crictl version\n'));
      assert.ok(started > 0, 'the page verifies');
      node.splice(started + 1, 0, ...look);
      const { status, stdout, stderr } = spawnSync(
        'unshare',
        ['-m', '-n', '--propagation', 'private', 'bash', '-c', node.join('\n')],
        {
          encoding: 'utf8',
          timeout: 300_000,
          cwd: temp.path,
          env: {
            ...process.env,
            NODE_DIR: temp.path,
            PATH: `${programs}:${path.dirname(containerd2)}:${process.env['PATH']}`,
          },
        },
      );
      const log = (name: string) => {
        const full = path.join(temp.path, `${name}.log`);
        return existsSync(full) ? readFileSync(full, 'utf8').slice(-2000) : '';
      };
      assert.equal(status, 0, `${stdout}\n${stderr}\n${log('gantryd')}\n${log('kubelet')}`);
      const seen = [...stdout.matchAll(/^same (.*)$/gm)].map(([, ids]) => ids!);
      assert.equal(seen.length, 3, stdout);
      assert.match(seen[0]!, /^[0-9a-f]{64} [0-9a-f]{64}$/);
      assert.equal(new Set(seen).size, 1, `the same pod and container: ${seen.join('\n')}`);
      assert.match(stdout, /^RuntimeVersion: {2}v2\.3\.4\+gantry/m);
      assert.match(stdout, /^Taken over\. Start gantryd now/m);
      assert.match(stdout, /1 pod, 1 container/);
    });
  });
}
