import { MountPropagation, NamespaceMode, type SecurityProfile_ProfileType } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { ContainerConfig, PodConfig } from './cri-twins.ts';
import type { TwinCase } from './twin-story.ts';

/** Containers and pods of every kind, that two runtimes are asked for. */

type ContainerSecurity = NonNullable<NonNullable<ContainerConfig['linux']>['securityContext']>;
type PodSecurity = NonNullable<NonNullable<PodConfig['linux']>['securityContext']>;
type Resources = NonNullable<NonNullable<ContainerConfig['linux']>['resources']>;
type Mounts = NonNullable<ContainerConfig['mounts']>;

const secure = (securityContext: ContainerSecurity): ContainerConfig => ({ linux: { securityContext } });
const securePod = (securityContext: PodSecurity): PodConfig => ({ linux: { securityContext } });
const limited = (resources: Resources): ContainerConfig => ({ linux: { resources } });
const mounted = (...mounts: Mounts): ContainerConfig => ({ mounts });
const device = (...devices: NonNullable<ContainerConfig['devices']>): ContainerConfig => ({ devices });
const text = (value: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(value));
const privilegedPod = securePod({ privileged: true });

/** What a process finds out about itself. */
const look = [
  'exec 2>&1',
  `grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp:|Cap)' /proc/self/status`,
  'cat /proc/self/limits /proc/self/oom_score_adj',
  'id; pwd; hostname',
  `cut -d' ' -f5- /proc/self/mountinfo | sed 's/ - overlay.*//; s/ [a-z_]*:[0-9]*//g'`,
  'ls -l /dev | cut -c1-10,24-40',
  'env',
].join('; ');

const { PROPAGATION_HOST_TO_CONTAINER: toContainer, PROPAGATION_BIDIRECTIONAL: bothWays } = MountPropagation;
const Profile = { default: 0, unconfined: 1, localhost: 2 } satisfies Record<string, SecurityProfile_ProfileType>;

/** Capabilities, privileges, users, paths, profiles. @param host a directory with `seccomp.json` and worse ones */
export function securityCases(host: string): TwinCase[] {
  const capabilities = (
    name: string,
    add: string[],
    drop: string[] = [],
    more: Partial<TwinCase> & { privileged?: boolean } = {},
  ): TwinCase => {
    const { privileged = false, ...rest } = more;
    return {
      name: `capabilities: ${name}`,
      container: secure({ capabilities: { addCapabilities: add, dropCapabilities: drop }, privileged }),
      ...rest,
    };
  };
  const privileged: ContainerSecurity = { privileged: true };
  const seccomp = (name: string, profileType: number, localhostRef = ''): TwinCase => ({
    name: `seccomp: ${name}`,
    container: secure({ seccomp: { profileType, localhostRef } }),
  });
  const oldSeccomp = (path: string): TwinCase => ({
    name: `seccomp: by its old name ${path}`,
    container: secure({ seccompProfilePath: path }),
  });
  const user = (name: string, context: ContainerSecurity, inside?: string): TwinCase => ({
    name: `user: ${name}`,
    container: secure(context),
    ...(inside && { inside }),
  });
  const id = (value: bigint) => ({ value });
  return [
    { name: 'a container', container: {}, inside: look },
    { name: 'a terminal', container: { tty: true, stdin: true }, inside: 'tty; stty size; echo $TERM' },
    capabilities('added', ['SYS_ADMIN', 'net_admin']),
    capabilities('dropped', [], ['CHOWN', 'KILL', 'SYS_TIME']),
    capabilities('all', ['ALL']),
    capabilities('all but one', ['ALL'], ['NET_RAW']),
    capabilities('none', [], ['all']),
    capabilities('one only', ['NET_RAW'], ['ALL'], { inside: look }),
    capabilities('all and none', ['ALL'], ['ALL']),
    capabilities('one added and dropped', ['CHOWN'], ['CHOWN']),
    capabilities('with their prefix', ['CAP_SYS_TIME'], ['CAP_KILL']),
    capabilities('unknown', ['NO_SUCH'], ['NOR_THIS']),
    { name: 'capabilities: nothing said', container: secure({ capabilities: {} }) },
    { name: 'privileged in a pod that is not', container: secure(privileged) },
    { name: 'privileged', pod: privilegedPod, container: secure(privileged), inside: look },
    { name: 'a privileged pod', pod: privilegedPod },
    { name: 'plain in a privileged pod', pod: privilegedPod, container: {} },
    capabilities('of what is privileged', ['SYS_TIME'], ['ALL'], { pod: privilegedPod, privileged: true }),
    {
      name: 'privileged, and everything that is against it',
      pod: privilegedPod,
      container: secure({
        ...privileged,
        noNewPrivs: true,
        readonlyRootfs: true,
        maskedPaths: ['/proc/x'],
        readonlyPaths: ['/proc/y'],
        runAsUser: id(33n),
        seccomp: { profileType: Profile.localhost, localhostRef: `${host}/seccomp.json` },
      }),
    },
    ...['', 'picky', 'open'].map((handler) => ({
      name: `privileged with a device, handler ${handler}`,
      handler,
      pod: privilegedPod,
      container: {
        ...secure(privileged),
        devices: [{ hostPath: '/dev/null', containerPath: '/dev/other', permissions: 'r' }],
      },
    })),
    user('by number', { runAsUser: id(1234n) }, 'id; grep Groups /proc/self/status'),
    user('that the image knows', { runAsUser: id(33n) }, look),
    user('and group', { runAsUser: id(33n), runAsGroup: id(7n) }),
    user('by name', { runAsUsername: 'www-data' }),
    user('by a name that is not there', { runAsUsername: 'nobody-here' }),
    user('name and number', { runAsUsername: 'www-data', runAsUser: id(5n) }),
    user('name and group', { runAsUsername: 'www-data', runAsGroup: id(5n) }),
    user('group only', { runAsGroup: id(5n) }),
    user('negative', { runAsUser: id(-1n) }),
    user('negative group', { runAsUser: id(1n), runAsGroup: id(-1n) }),
    user('the last', { runAsUser: id(0x7fffffffn) }),
    user('beyond the last', { runAsUser: id(0x80000000n) }),
    user('groups', { supplementalGroups: [9n, 6n, 9n] }, 'id'),
    user('negative groups', { supplementalGroups: [-5n] }),
    user('strictly', { runAsUser: id(33n), supplementalGroups: [5n], supplementalGroupsPolicy: 1 }, 'id'),
    user('merged', { runAsUser: id(33n), supplementalGroups: [5n] }, 'id'),
    user('by a policy to come', { runAsUser: id(33n), supplementalGroupsPolicy: 5 as never }),
    { name: 'read-only and no more', container: secure({ readonlyRootfs: true, noNewPrivs: true }), inside: look },
    {
      name: 'masked and read-only paths',
      container: secure({ maskedPaths: ['/proc/version', '/nowhere'], readonlyPaths: ['/proc/sys', '/root'] }),
      inside: 'cat /proc/version; touch /root/x; touch /proc/sys/x',
    },
    seccomp('default', Profile.default),
    seccomp('none', Profile.unconfined),
    seccomp('own', Profile.localhost, `${host}/seccomp.json`),
    seccomp('own, with a prefix', Profile.localhost, `localhost/${host}/seccomp.json`),
    seccomp('missing', Profile.localhost, `${host}/none.json`),
    seccomp('a directory', Profile.localhost, host),
    seccomp('no JSON', Profile.localhost, `${host}/bad.json`),
    seccomp('no profile', Profile.localhost, `${host}/wrong.json`),
    seccomp('on the way out', Profile.localhost, '../../etc/passwd'),
    seccomp('without a name', Profile.localhost),
    seccomp('default with a name', Profile.default, 'x'),
    seccomp('unknown kind', 9),
    ...['SYS_ADMIN', 'BPF', 'SYS_PTRACE', 'SYS_TIME', 'SYS_NICE'].map((cap) => ({
      name: `seccomp: default with ${cap}`,
      container: secure({
        seccomp: { profileType: Profile.default },
        capabilities: { dropCapabilities: ['ALL'], addCapabilities: [cap] },
      }),
    })),
    ...['runtime/default', 'docker/default', 'unconfined', `localhost/${host}/seccomp.json`, 'other'].map(oldSeccomp),
    ...[0, 1, 2, 9].map((profileType) => ({
      name: `apparmor: ${profileType}`,
      container: secure({ apparmor: { profileType, localhostRef: profileType === 2 ? 'mine' : '' } }),
    })),
    ...['runtime/default', 'unconfined', 'localhost/mine', 'other'].map((apparmorProfile) => ({
      name: `apparmor: ${apparmorProfile}`,
      container: secure({ apparmorProfile }),
    })),
    { name: 'selinux', container: secure({ selinuxOptions: { user: 'u', role: 'r', type: 't', level: 's0:c1,c2' } }) },
    { name: 'selinux: no level', container: secure({ selinuxOptions: { level: 'no level' } }) },
    ...([0, 1, 2, 3] as NamespaceMode[]).flatMap((mode) =>
      (['pid', 'ipc', 'network'] as const).map((kind) => ({
        name: `${kind} namespace ${NamespaceMode[mode]}`,
        container: secure({ namespaceOptions: { [kind]: mode } }),
      })),
    ),
  ];
}

/** Limits, devices, mounts. @param host a directory with files, links, mounts and devices of all kinds */
export function resourceCases(host: string): TwinCase[] {
  const limits = (name: string, resources: Resources, inside?: string): TwinCase => ({
    name: `limits: ${name}`,
    container: limited(resources),
    ...(inside && { inside }),
  });
  const mib = 1n << 20n;
  const mount = (name: string, ...mounts: Mounts): TwinCase => ({
    name: `mount: ${name}`,
    container: mounted(...mounts),
  });
  const directory = `${host}/dir`;
  return [
    limits('processors', { cpuPeriod: 100000n, cpuQuota: 50000n, cpuShares: 512n, cpusetCpus: '0', cpusetMems: '0' }),
    limits('memory', { memoryLimitInBytes: 64n * mib }),
    limits('swap', { memoryLimitInBytes: 64n * mib, memorySwapLimitInBytes: 128n * mib }),
    limits('swap only', { memorySwapLimitInBytes: 128n * mib }),
    limits('no limit of swap', { memoryLimitInBytes: 64n * mib, memorySwapLimitInBytes: -1n }),
    limits('no limit', { memoryLimitInBytes: -1n, cpuQuota: -1n }),
    limits('negative', { cpuShares: -1n }),
    limits('huge pages', { hugepageLimits: [{ pageSize: '2MB', limit: 4n * mib }] }),
    limits('of the kernel’s names', { unified: { 'memory.high': '1000000' } }),
    limits('score', { oomScoreAdj: 500n }),
    limits('low score', { oomScoreAdj: -500n }),
    limits('score beyond', { oomScoreAdj: 5000n }),
    limits('nothing said', {}),
    limits('all', { cpuQuota: 50000n, cpuShares: 512n, memoryLimitInBytes: 64n * mib, oomScoreAdj: 200n }, look),
    {
      name: 'device',
      container: device({ hostPath: '/dev/null', containerPath: '/dev/mine', permissions: 'rwm' }),
      inside: 'ls -l /dev/mine | cut -c1-10',
    },
    ...['r', '', 'xyz'].map((permissions) => ({
      name: `device: permissions ${permissions}`,
      container: device({ hostPath: '/dev/null', containerPath: '/dev/mine', permissions }),
    })),
    { name: 'device: at its own place', container: device({ hostPath: '/dev/null', permissions: 'r' }) },
    ...['', '/dev/nowhere', '/etc/hosts', `${host}/devices`, `${host}/empty`, `${host}/device-link`].map(
      (hostPath) => ({
        name: `device: ${hostPath.replace(host, '')}`,
        container: device({ hostPath, containerPath: '/dev/x', permissions: 'rm' }),
      }),
    ),
    {
      name: 'device: two at one place, and one over another',
      container: device(
        { hostPath: '/dev/null', containerPath: '/dev/x', permissions: 'rm' },
        { hostPath: '/dev/zero', containerPath: '/dev/x', permissions: 'rm' },
        { hostPath: '/dev/zero', containerPath: '/dev/null', permissions: 'rm' },
      ),
    },
    {
      name: 'device: of the user',
      container: {
        ...secure({ runAsUser: { value: 33n }, runAsGroup: { value: 9n } }),
        ...device({ hostPath: '/dev/null', containerPath: '/dev/x', permissions: 'rm' }),
      },
    },
    {
      name: 'device: of a user by name',
      container: {
        ...secure({ runAsUsername: 'www-data' }),
        ...device({ hostPath: '/dev/null', containerPath: '/dev/x', permissions: 'rm' }),
      },
    },
    { name: 'CDI: by field', container: { CDIDevices: [{ name: 'vendor.test/class=one' }] } },
    { name: 'CDI: by annotation', container: { annotations: { 'cdi.k8s.io/x_y': 'vendor.test/class=one' } } },
    {
      name: 'CDI: both',
      container: {
        CDIDevices: [{ name: 'vendor.test/class=one' }],
        annotations: { 'cdi.k8s.io/x_y': 'vendor.test/class=one,vendor.test/class=two' },
      },
    },
    { name: 'CDI: missing', container: { CDIDevices: [{ name: 'vendor.test/class=none' }] } },
    { name: 'mount', container: mounted({ hostPath: directory, containerPath: '/mnt' }), inside: look },
    mount('read-only', { hostPath: directory, containerPath: '/mnt', readonly: true }),
    mount('file', { hostPath: `${host}/file`, containerPath: '/etc/file' }),
    mount('missing', { hostPath: `${host}/made/here`, containerPath: '/mnt' }),
    mount('link', { hostPath: `${host}/link`, containerPath: '/mnt' }),
    mount('link to nowhere', { hostPath: `${host}/dangling`, containerPath: '/mnt' }),
    mount('link to itself', { hostPath: `${host}/loop`, containerPath: '/mnt' }),
    mount('beneath a file', { hostPath: `${host}/file/x`, containerPath: '/mnt' }),
    mount('of nothing', { containerPath: '/mnt' }),
    mount('on the way out', { hostPath: directory, containerPath: '/../../../mnt/../up' }),
    mount(
      'twice at one place',
      { hostPath: directory, containerPath: '/mnt' },
      { hostPath: `${host}/other`, containerPath: '/mnt' },
    ),
    mount(
      'in each other',
      { hostPath: directory, containerPath: '/mnt/a/b' },
      { hostPath: directory, containerPath: '/mnt' },
      { hostPath: directory, containerPath: '/mnt/a' },
    ),
    mount('with a zero byte', { hostPath: `${host}/di\0r`, containerPath: '/mnt' }),
    mount('with a long name', { hostPath: `/${'x'.repeat(300)}`, containerPath: '/mnt' }),
    ...['private', 'shared'].flatMap((kind) =>
      [toContainer, bothWays].map((propagation) =>
        mount(`${kind}, ${MountPropagation[propagation]}`, {
          hostPath: `${host}/${kind}`,
          containerPath: '/mnt',
          propagation,
        }),
      ),
    ),
    mount('read-only to the depth', {
      hostPath: directory,
      containerPath: '/mnt',
      readonly: true,
      recursiveReadOnly: true,
    }),
    mount('to be written to the depth', { hostPath: directory, containerPath: '/mnt', recursiveReadOnly: true }),
    ...['/etc/hosts', '/dev/shm', '/dev/shm/', '/etc/../etc/hosts', '/dev', '/sys', '/sys/fs/cgroup', '/proc'].map(
      (at) => mount(`over ${at}`, { hostPath: at.endsWith('hosts') ? `${host}/file` : directory, containerPath: at }),
    ),
  ];
}

/** Images, and parts of them, as volumes. */
export function imageVolumeCases(host: string): TwinCase[] {
  const image = { image: 'docker.io/library/volumes:1' };
  const volume = (
    imageSubPath: string,
    more: { readonly?: boolean; hostPath?: string; image?: { image: string } } = {},
  ): TwinCase => ({
    name: `volume: ${imageSubPath || 'whole'} ${Object.keys(more)}`,
    container: mounted({
      containerPath: '/vol',
      image,
      readonly: true,
      imageSubPath,
      ...more,
    }),
  });
  return [
    volume(''),
    volume('data'),
    volume('data/kept'),
    volume('nowhere'),
    volume('../x'),
    volume('/data'),
    volume('away'),
    volume('', { readonly: false }),
    volume('', { hostPath: `${host}/dir` }),
    volume('', { image: { image: 'docker.io/library/none:1' } }),
  ];
}

/** Images, environments, names, annotations. */
export function imageCases(host: string): TwinCase[] {
  return [
    ...['volumes', 'user', 'user-group', 'no-user', 'cmd', 'entrypoint', 'both', 'nothing', 'hostile', 'odd'].flatMap(
      (name): TwinCase[] => {
        const image = { image: `${name}:1` };
        return [
          { name: `image ${name}`, container: { image, command: [] } },
          { name: `image ${name} with arguments`, container: { image, command: [], args: ['a', 'b'] } },
          { name: `image ${name} with a command`, container: { image, command: ['c'], args: ['d'] } },
        ];
      },
    ),
    {
      name: 'volumes of an image, and the hostile one',
      container: { image: { image: 'hostile:1' } },
      inside: 'ls -lR /data /etc /tmp | cut -c1-10,34-; env',
    },
    {
      name: 'a volume of an image that is mounted over',
      container: { image: { image: 'volumes:1' }, ...mounted({ hostPath: `${host}/dir`, containerPath: '/data/' }) },
    },
    { name: 'an image that is not there', container: { image: { image: 'none:1' } } },
    {
      name: 'environment',
      container: {
        envs: Object.entries({ A: 'b', PATH: '/x', HOSTNAME: 'h', EMPTY: '', TERM: 'z', LINES: 'a\nb' }).map(
          ([key, value]) => ({ key, value: text(value) }),
        ),
      },
    },
    { name: 'environment with a terminal', container: { tty: true, envs: [{ key: 'TERM', value: text('z') }] } },
    { name: 'working directory', container: { workingDir: '/new/directory' }, inside: 'pwd; ls -ld /new | cut -c1-10' },
    { name: 'working directory on the way out', container: { workingDir: '/../../x' }, inside: 'pwd' },
    { name: 'relative working directory', container: { workingDir: 'x' }, inside: 'pwd' },
    { name: 'a command that is not there', container: { command: ['/nowhere'] }, inside: 'true' },
    { name: 'a command that is none', container: { command: ['/etc'] }, inside: 'true' },
    ...[10, 40, 65, 99].map((stopSignal) => ({ name: `stop signal ${stopSignal}`, container: { stopSignal } })),
    { name: 'labels and annotations', container: { labels: { a: 'b', 'x.y/z': '' }, annotations: { c: 'd' } } },
    { name: 'a label too long', container: { labels: { a: 'b'.repeat(5000) } } },
    { name: 'a log on the way out', container: { logPath: '../../../out.log' } },
    { name: 'no log', container: { logPath: '' } },
    {
      name: 'annotations that are passed on',
      handler: 'picky',
      pod: { annotations: { 'pod.test/a': '1', 'pod.test/b/c': '2', exact: 'e', other: 'x', 'container.test/p': 'q' } },
      container: {
        annotations: { 'container.test/a': '1', 'container.test/b/c': '1', 'x.deep': 'd', 'a/b/c': '3', 'a/bb/c': '4' },
      },
    },
    { name: 'a base specification', handler: 'based', container: {} },
    { name: 'a pod of a handler with one', handler: 'based' },
  ];
}

/** Pods, by themselves and with a container. */
export function podCases(host: string): TwinCase[] {
  const pod = (name: string, config: PodConfig): TwinCase => ({ name: `pod: ${name}`, pod: config });
  const secured = (name: string, context: PodSecurity): TwinCase => pod(name, securePod(context));
  const hosts = { pid: NamespaceMode.NODE, ipc: NamespaceMode.NODE, network: NamespaceMode.NODE };
  const dns: PodConfig = {
    hostname: 'named',
    dnsConfig: { servers: ['192.0.2.1'], searches: ['a', 'b'], options: ['ndots:5'] },
  };
  const parent: PodConfig = { linux: { cgroupParent: '/gantry-twins' } };
  return [
    pod('plain', {}),
    secured('pid of its own for each', { namespaceOptions: { pid: NamespaceMode.CONTAINER } }),
    secured('namespaces of the machine', { namespaceOptions: hosts }),
    {
      name: 'a container with the machine’s namespaces',
      pod: securePod({ namespaceOptions: hosts }),
      container: secure({ namespaceOptions: hosts }),
      inside: 'hostname; cat /etc/hostname; env; cat /etc/hosts; cat /etc/resolv.conf',
    },
    secured('user', { runAsUser: { value: 33n }, runAsGroup: { value: 12n }, supplementalGroups: [4n] }),
    secured('group only', { runAsGroup: { value: 12n } }),
    secured('seccomp', { seccomp: { profileType: 0 } }),
    secured('own seccomp', { seccomp: { profileType: 2, localhostRef: `${host}/seccomp.json` } }),
    secured('missing seccomp', { seccomp: { profileType: 2, localhostRef: `${host}/none.json` } }),
    secured('old seccomp', { seccompProfilePath: 'runtime/default' }),
    secured('apparmor', { apparmor: { profileType: 2, localhostRef: 'mine' } }),
    pod('names', dns),
    {
      name: 'a container with the names of its pod',
      pod: dns,
      container: {},
      inside: 'cat /etc/host* /etc/resolv.conf; env',
    },
    pod('no names', { dnsConfig: {} }),
    pod('host name too long', { hostname: 'h'.repeat(65) }),
    pod('sysctls', { linux: { sysctls: { 'kernel.shm_rmid_forced': '1', 'net.ipv4.ping_group_range': '0 1' } } }),
    pod('sysctl of the machine', { linux: { sysctls: { 'kernel.pid_max': '1' } } }),
    { name: 'a container beneath a cgroup', pod: parent, container: {}, inside: 'cat /proc/self/cgroup' },
    pod('a slice', { linux: { cgroupParent: '/gantry-twins.slice' } }),
    pod('limits', { linux: { overhead: { cpuShares: 5n }, resources: { cpuQuota: 50000n, cpuPeriod: 100000n } } }),
    pod('labels', { labels: { a: 'b', name: 'n' }, annotations: { q: 'r' } }),
    { name: 'no such handler', handler: 'none' },
  ];
}

/** User namespaces. They need a runtime that maps the ids of mounts, at the handler `newer`. */
export function userNamespaceCases(host: string): TwinCase[] {
  const mapping = (hostId: number) => [{ containerId: 0, hostId, length: 65536 }];
  const userns = (hostId: number, more: object = {}) => ({
    namespaceOptions: { usernsOptions: { mode: 0, uids: mapping(hostId), gids: mapping(hostId) }, ...more },
  });
  const own = securePod(userns(100000));
  const pod = (name: string, config: PodConfig): TwinCase => ({ name: `ids: ${name}`, handler: 'newer', pod: config });
  const container = (name: string, config: PodConfig, given: ContainerConfig, inside?: string): TwinCase => ({
    ...pod(name, config),
    container: given,
    ...(inside && { inside }),
  });
  const uids = (options: object): PodConfig => securePod({ namespaceOptions: { usernsOptions: options } });
  const same = secure(userns(100000));
  return [
    pod('a pod', own),
    container('a container', own, same, look),
    container('none of its pod', own, {}),
    container('in a pod without', {}, same),
    container('other than its pod', own, secure(userns(300000))),
    container('volumes', own, { ...same, image: { image: 'volumes:1' } }, 'ls -ln /data /etc | cut -c1-40'),
    container(
      'a mapped mount',
      own,
      {
        ...same,
        mounts: [
          {
            hostPath: `${host}/dir`,
            containerPath: '/mnt',
            uidMappings: mapping(100000),
            gidMappings: mapping(100000),
          },
        ],
      },
      'ls -ln /mnt | cut -c1-40',
    ),
    { ...container('a runtime that cannot', own, same, 'true'), handler: '' },
    pod('the machine’s, said so', uids({ mode: 2 })),
    pod('the machine’s, with ids', uids({ mode: 2, uids: mapping(1), gids: mapping(1) })),
    pod('no such mode', uids({ mode: 1, uids: mapping(1), gids: mapping(1) })),
    pod('no ids', uids({ mode: 0 })),
    pod('no groups', uids({ mode: 0, uids: mapping(100000) })),
    pod('no length', uids({ mode: 0, uids: [{ hostId: 1 }], gids: [{ hostId: 1 }] })),
  ];
}
