// A kubelet of Kubernetes itself, with pods from files, on this daemon: GANTRY_KUBELET=1 compiles one, which takes minutes.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { WebSocket } from 'ws';
import { CriLab } from '../lib/cri-lab.ts';
import { type ContainerOnNode, TestKubelet } from '../lib/kubelet.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const patience = 120_000;
const image = 'busybox:1';

describe('a kubelet', { skip: TestKubelet.missing() || CriLab.missing() }, () => {
  const temp = makeTempDir('kubelet');
  const lab = new CriLab(path.join(temp.path, 'lab'), { bridge: 'gantrykubelet0', subnet: '10.222.0.0/24' });
  const kubelet = new TestKubelet(path.join(temp.path, 'node'), lab.daemon.address);
  const host = path.join(temp.path, 'host');

  before(async () => {
    mkdirSync(host);
    // For a user that is not root.
    chmodSync(host, 0o777);
    writeFileSync(path.join(host, 'file'), 'from the host\n');
    await lab.start();
    await kubelet.start('containerLogMaxSize: 256Ki\ncontainerLogMaxFiles: 3\ncontainerLogMonitorInterval: 3s\n');
  });
  after(async () => {
    await kubelet.stop();
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await kubelet.close();
    await lab.close();
    await temp.remove();
  });

  /** Waits until a container is as it should be. */
  const reaches = (pod: string, name: string, what: string, good: (one: ContainerOnNode) => boolean) =>
    eventually(
      `${name} of ${pod} ${what}`,
      async () => {
        const found = await kubelet.container(pod, name);
        return found && good(found) ? found : undefined;
      },
      patience,
    );
  const ready = (pod: string, name = 'main') => reaches(pod, name, 'is ready', (one) => one.ready);
  const logOf = async (pod: string, query = '', name = 'main') =>
    (await kubelet.get(`/containerLogs/default/${pod}-node/${name}?${query}`)).body;
  /** Words, which the kubelet takes apart at spaces. */
  const inPod = async (pod: string, words: string) =>
    (await kubelet.get(`/run/default/${pod}-node/main?cmd=${encodeURIComponent(words)}`, 'POST')).body;
  /** Removes pods and waits until nothing of them runs. The kubelet removes what is left of them once in a minute. */
  const gone = async (...pods: string[]) => {
    for (const pod of pods) kubelet.removePod(pod);
    await eventually(
      `${pods} are gone`,
      async () => {
        const left = await Promise.all(
          pods.map((pod) => lab.ok('pods', '-q', '--state', 'Ready', '--name', `^${pod}-node$`)),
        );
        const known = await Promise.all(pods.map((pod) => kubelet.pod(pod)));
        return (left.join('') === '' && known.every((pod) => !pod)) || undefined;
      },
      patience,
    );
  };
  const mainOf = (pod: string) =>
    lab.ok('ps', '-q', '--name', '^main$', '--label', `io.kubernetes.pod.name=${pod}-node`);
  const shell = (script: string) => ['sh', '-c', script];

  test('a pod with all that pods have', async () => {
    kubelet.addPod('full', {
      terminationGracePeriodSeconds: 30,
      hostname: 'full-host',
      initContainers: [
        {
          name: 'first',
          image,
          command: shell('echo made by init > /work/init; echo init says'),
          volumeMounts: [{ name: 'work', mountPath: '/work' }],
        },
        {
          name: 'sidecar',
          image,
          restartPolicy: 'Always',
          command: shell('trap "exit 0" TERM; echo > /work/sidecar; while :; do sleep 0.1; done'),
          startupProbe: {
            exec: { command: shell('read line < /work/sidecar || [ -e /work/sidecar ]') },
            periodSeconds: 1,
          },
          volumeMounts: [{ name: 'work', mountPath: '/work' }],
        },
      ],
      containers: [
        {
          name: 'main',
          image,
          command: shell(
            'trap "echo ended > /host/ended; exit 0" TERM; [ -e /work/sidecar ] && echo after sidecar; cat /work/init /host/file; env; id; cat /proc/mounts /etc/hosts; ' +
              'cat /proc/self/status; echo x > /denied || echo read-only; busybox httpd -p 8080 -h /work; while :; do sleep 0.1; done',
          ),
          env: [
            { name: 'GREETING', value: 'hello $(POD_IP)' },
            { name: 'LIMIT', valueFrom: { resourceFieldRef: { resource: 'limits.memory' } } },
            { name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          ].reverse(),
          resources: { limits: { memory: '64Mi', cpu: '200m' }, requests: { memory: '32Mi', cpu: '50m' } },
          securityContext: {
            runAsUser: 1000,
            runAsGroup: 1000,
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'] },
            seccompProfile: { type: 'RuntimeDefault' },
          },
          volumeMounts: [
            { name: 'work', mountPath: '/work' },
            { name: 'host', mountPath: '/host' },
            { name: 'memory', mountPath: '/memory' },
          ],
          startupProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
          readinessProbe: { httpGet: { path: '/init', port: 8080 }, periodSeconds: 1 },
          livenessProbe: { exec: { command: shell('read line < /work/init') }, periodSeconds: 1 },
          lifecycle: {
            postStart: { exec: { command: shell('echo > /work/post-start') } },
            preStop: { exec: { command: shell('echo > /host/pre-stop') } },
          },
        },
      ],
      securityContext: { fsGroup: 2000, supplementalGroups: [3000] },
      volumes: [
        { name: 'work', emptyDir: {} },
        { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
        { name: 'host', hostPath: { path: host } },
      ],
    });
    await ready('full');
    const first = await kubelet.container('full', 'first');
    assert.deepEqual(
      [first?.state.terminated?.exitCode, first?.state.terminated?.reason, first?.restartCount],
      [0, 'Completed', 0],
    );
    assert.ok((await kubelet.container('full', 'sidecar'))?.state.running);
    assert.equal(await logOf('full', '', 'first'), 'init says\n');
    const ip = (await kubelet.pod('full'))?.status.podIP ?? '';
    assert.match(ip, /^10\.222\.0\.\d+$/);
    const log = await logOf('full');
    for (const part of [
      'after sidecar\nmade by init\nfrom the host\n',
      `GREETING=hello ${ip}\n`,
      'LIMIT=67108864\n',
      'HOSTNAME=full-host\n',
      'uid=1000 gid=1000',
      ' /memory tmpfs rw,',
      `${ip}\tfull-host`,
      'CapEff:\t0000000000000000',
      'NoNewPrivs:\t1',
      'Seccomp:\t2',
      'read-only\n',
    ])
      assert.ok(log.includes(part), `${part} in ${log}`);
    assert.match(log, /groups=1000,2000,3000|Groups:\t(?=.*2000)(?=.*3000)/);
    const { resources } = (
      await lab.json<{ status: { resources: { linux: Record<string, string> } } }>('inspect', await mainOf('full'))
    ).status;
    assert.deepEqual([resources.linux['memoryLimitInBytes'], resources.linux['cpuQuota']], ['67108864', '20000']);
    assert.equal(await inPod('full', 'ls /work/post-start'), '/work/post-start\n');
  });

  test('what ends, fails, or cannot begin', async () => {
    kubelet.addPod('crash', {
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image, command: shell('echo run; exit 4') }],
    });
    kubelet.addPod('once', {
      restartPolicy: 'Never',
      containers: [{ name: 'main', image, command: shell('echo last words > /dev/termination-log; echo once') }],
    });
    kubelet.addPod('frozen', {
      restartPolicy: 'OnFailure',
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'main',
          image,
          command: shell('sleep 1000'),
          livenessProbe: { exec: { command: shell('exit 1') }, periodSeconds: 1, failureThreshold: 1 },
        },
      ],
    });
    kubelet.addPod('bad', {
      terminationGracePeriodSeconds: 1,
      containers: [
        { name: 'image', image: 'no-such-image:1' },
        { name: 'program', image, command: ['/no/such/program'] },
        {
          name: 'memory',
          image,
          command: shell('a=x; while :; do a=$a$a$a$a; done'),
          resources: { limits: { memory: '16Mi' } },
        },
      ],
    });
    const crashed = await reaches(
      'crash',
      'main',
      'is held back',
      (one) => one.restartCount >= 1 && !!one.state.waiting,
    );
    assert.deepEqual([crashed.state.waiting?.reason, crashed.lastState.terminated?.exitCode], ['CrashLoopBackOff', 4]);
    assert.equal(await logOf('crash', 'previous=true'), 'run\n');
    const once = await reaches('once', 'main', 'has ended', (one) => !!one.state.terminated);
    assert.deepEqual([once.state.terminated?.reason, once.state.terminated?.message], ['Completed', 'last words\n']);
    await eventually(
      'it has succeeded',
      async () => (await kubelet.pod('once'))?.status.phase === 'Succeeded' || undefined,
    );
    const frozen = await reaches('frozen', 'main', 'was started again', (one) => one.restartCount >= 1);
    assert.equal(frozen.lastState.terminated?.exitCode, 137);
    const missing = await reaches('bad', 'image', 'waits', (one) =>
      /^(ErrImagePull|ImagePullBackOff)$/.test(one.state.waiting?.reason ?? ''),
    );
    assert.match(missing.state.waiting?.message ?? '', /no-such-image:1/);
    const program = await reaches('bad', 'program', 'could not start', (one) => !!one.lastState.terminated);
    assert.deepEqual(
      [program.lastState.terminated?.reason, program.lastState.terminated?.exitCode],
      ['StartError', 128],
    );
    assert.match(
      program.lastState.terminated?.message ?? '',
      /failed to create containerd task.*no such file or directory/,
    );
    const memory = await reaches('bad', 'memory', 'ran out of memory', (one) => !!one.lastState.terminated);
    assert.deepEqual([memory.lastState.terminated?.reason, memory.lastState.terminated?.exitCode], ['OOMKilled', 137]);
    await gone('crash', 'once', 'frozen', 'bad');
  });

  test('the kubelet’s own API: logs, exec, port-forward, numbers', async () => {
    assert.match(await logOf('full', 'tailLines=1&timestamps=true'), /^\d{4}-\d\d-\d\dT\S+ .*\n$/);
    const exec = kubelet.connect(
      `/exec/default/full-node/main?command=sh&command=-c&command=${encodeURIComponent('read a; echo "got $a"; echo err >&2; exit 6')}&input=1&output=1&error=1`,
      'v5.channel.k8s.io',
    );
    const said = await conversation(exec, [Buffer.from('\0typed\n')]);
    assert.equal(said.get(1), 'got typed\n');
    assert.equal(said.get(2), 'err\n');
    assert.match(said.get(3) ?? '', /"reason":"ExitCode","message":"6"/);
    const forward = kubelet.connect('/portForward/default/full-node?port=8080', 'v4.channel.k8s.io');
    const answer =
      (await conversation(forward, [Buffer.from('\0GET /init HTTP/1.0\r\n\r\n')], 'made by init')).get(0) ?? '';
    // A port's channels begin with its number.
    assert.equal(Buffer.from(answer.slice(0, 2), 'latin1').readUInt16LE(), 8080);
    assert.match(answer, /200 OK[\s\S]*made by init/);
    const summary = await eventually(
      'the summary has the pod',
      async () => {
        const { status, body } = await kubelet.get('/stats/summary');
        if (status !== 200) return undefined;
        const { pods } = JSON.parse(body) as Summary;
        const pod = pods.find(({ podRef }) => podRef.name === 'full-node');
        return pod?.containers.find(({ name, memory }) => name === 'main' && memory?.workingSetBytes) && pod;
      },
      patience,
    );
    assert.ok(summary.containers.length >= 2);
    await eventually(
      'cAdvisor has the container',
      async () =>
        /container_memory_working_set_bytes\{container="main",.*pod="full-node"/.test(
          (await kubelet.get('/metrics/cadvisor')).body,
        ) || undefined,
      patience,
    );
  });

  test('logs are rotated, and not a line is lost', async () => {
    const script =
      'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo "$i ................................"; done; echo over; sleep 1000';
    kubelet.addPod('writer', {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image, command: shell(script) }],
    });
    const files = await eventually(
      'all is written and rotated',
      () => {
        const pod = readdirSync(kubelet.logs).find((name) => name.includes('writer-node'));
        if (!pod) return undefined;
        const directory = path.join(kubelet.logs, pod, 'main');
        // The newest is the one without a time.
        const names = existsSync(directory) ? readdirSync(directory).filter((name) => !name.endsWith('.tmp')) : [];
        const rotated = names.filter((name) => name !== '0.log').sort();
        if (rotated.length === 0 || !names.includes('0.log')) return undefined;
        const pieces = [...rotated, '0.log'].map((name) => {
          const bytes = readFileSync(path.join(directory, name));
          return (name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
        });
        return / stdout F over$/m.test(pieces.at(-1)! || pieces.at(-2)!)
          ? { directory, text: pieces.join('') }
          : undefined;
      },
      patience,
    );
    const numbers = files.text
      .split('\n')
      .flatMap((line) => /^\S+ stdout F (\d+) /.exec(line)?.[1] ?? [])
      .map(Number);
    assert.equal(numbers.at(-1), 30_000);
    for (const [at, number] of numbers.entries()) assert.equal(number, numbers[0]! + at);
    await gone('writer');
  });

  /** Ids of those that run. */
  const containersOf = async (pod: string) =>
    (await lab.ok('ps', '-q', '--no-trunc', '--label', `io.kubernetes.pod.name=${pod}-node`)).split('\n').sort();

  test('started again, with events, streamed lists and numbers from the runtime, it finds its pods as they were', async () => {
    const before = await containersOf('full');
    await kubelet.stop();
    const gates = ['EventedPLEG', 'CRIListStreaming', 'PodAndContainerStatsFromCRI', 'ContainerStopSignals'];
    await kubelet.start(`featureGates: {${gates.map((gate) => `${gate}: true`).join(', ')}}\n`);
    await ready('full');
    assert.deepEqual(await containersOf('full'), before);
    // Numbers of all pods, and those without a network of their own.
    kubelet.addPod('host', {
      hostNetwork: true,
      hostPID: true,
      hostIPC: true,
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: 'main',
          image,
          securityContext: { privileged: true },
          command: shell('cat /proc/1/comm; sleep 1000'),
        },
      ],
    });
    kubelet.addPod('shared', {
      os: { name: 'linux' },
      shareProcessNamespace: true,
      terminationGracePeriodSeconds: 30,
      dnsPolicy: 'None',
      dnsConfig: { nameservers: ['192.0.2.53'], searches: ['lab.test'] },
      hostAliases: [{ ip: '192.0.2.7', hostnames: ['elsewhere'] }],
      securityContext: { sysctls: [{ name: 'net.ipv4.ip_unprivileged_port_start', value: '10' }] },
      containers: [
        {
          name: 'main',
          image,
          command: shell(
            'trap "echo usr1 > /host/usr1; exit 0" USR1; cat /etc/resolv.conf /etc/hosts /proc/sys/net/ipv4/ip_unprivileged_port_start /image/kept; echo $$; while :; do sleep 0.1; done',
          ),
          lifecycle: { stopSignal: 'SIGUSR1', preStop: { sleep: { seconds: 1 } } },
          volumeMounts: [
            { name: 'image', mountPath: '/image', subPath: 'data' },
            { name: 'host', mountPath: '/host' },
          ],
        },
      ],
      volumes: [
        { name: 'image', image: { reference: 'volumes:1' } },
        { name: 'host', hostPath: { path: host } },
      ],
    });
    await ready('host');
    await ready('shared');
    assert.equal(await logOf('host'), readFileSync('/proc/1/comm', 'utf8'));
    const log = await logOf('shared');
    for (const part of ['nameserver 192.0.2.53\n', '192.0.2.7\telsewhere\n', '\n10\n', 'from the image\n'])
      assert.ok(log.includes(part), `${part} in ${log}`);
    assert.doesNotMatch(log, /\n1\n$/, 'the pod’s process is the first one');
    const summary = await eventually(
      'the summary has all pods',
      async () => {
        const { status, body } = await kubelet.get('/stats/summary');
        const pods = status === 200 ? (JSON.parse(body) as Summary).pods : [];
        return pods.length >= 3 ? pods : undefined;
      },
      patience,
    );
    for (const { podRef, memory, network } of summary) {
      assert.ok(memory?.workingSetBytes, podRef.name);
      assert.equal(network?.name, podRef.name === 'host-node' ? undefined : 'eth0');
    }
    assert.match(
      (await kubelet.get('/metrics/cadvisor')).body,
      /container_memory_working_set_bytes\{container="main",.*pod="full-node"/,
    );
    await gone('host', 'shared');
    assert.ok(existsSync(path.join(host, 'usr1')), 'it was stopped by its own signal');
    assert.doesNotMatch(kubelet.log(), /Observed a panic/);
  });

  test('after kill -9 of the daemon the same containers go on, and are looked after', async () => {
    const before = await containersOf('full');
    await lab.daemon.kill();
    await lab.daemon.start();
    assert.equal(
      await eventually(
        'commands run',
        async () => {
          const answer = await inPod('full', 'echo still');
          return answer === 'still\n' ? answer : undefined;
        },
        patience,
      ),
      'still\n',
    );
    await ready('full');
    assert.deepEqual(await containersOf('full'), before);
    const { info } = await lab.json<{ info: { pid: number } }>('inspect', await mainOf('full'));
    process.kill(info.pid, 'SIGKILL');
    const again = await reaches('full', 'main', 'was started again', (one) => one.restartCount === 1 && one.ready);
    assert.equal(again.lastState.terminated?.exitCode, 137);
  });

  test('a pod that is removed ends in its own time, and leaves nothing', async () => {
    await gone('full');
    for (const file of ['ended', 'pre-stop']) assert.ok(existsSync(path.join(host, file)), file);
    await eventually('all are removed', async () => (await lab.ok('pods', '-q')) === '' || undefined, patience);
    await eventually('logs too', () => readdirSync(kubelet.logs).length === 0 || undefined, patience);
    assert.deepEqual(
      readdirSync(path.join(lab.directory, 'ipam/gantrykubelet0')).filter((name) => /^\d/.test(name)),
      [],
    );
    assert.deepEqual(mountsBeneath(lab.directory), []);
  });
});

/** Says something and listens until the other side ends, or has said `until`. Answers what came on each channel. */
async function conversation(socket: WebSocket, messages: Buffer[], until?: string): Promise<Map<number, string>> {
  const said = new Map<number, string>();
  const { promise, resolve, reject } = Promise.withResolvers<Map<number, string>>();
  const timer = setTimeout(() => reject(new Error(`too late: ${JSON.stringify([...said])}`)), 60_000);
  socket.on('open', () => {
    for (const message of messages) socket.send(message);
  });
  socket.on('message', (data: Buffer) => {
    const channel = data[0]!;
    said.set(channel, (said.get(channel) ?? '') + data.toString('latin1', 1));
    if (until !== undefined && said.get(channel)!.includes(until)) socket.close();
  });
  socket.on('error', reject);
  socket.on('close', () => resolve(said));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.terminate();
  }
}

interface Summary {
  pods: {
    podRef: { name: string };
    memory?: { workingSetBytes?: number };
    network?: { name?: string };
    containers: { name: string; memory?: { workingSetBytes?: number } }[];
  }[];
}
