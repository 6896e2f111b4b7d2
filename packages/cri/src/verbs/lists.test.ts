import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary } from '@bufbuild/protobuf';
import {
  ContainerConfigSchema,
  ContainerState,
  ListContainersResponseSchema,
  ListPodSandboxResponseSchema,
  PodSandboxConfigSchema,
  PodSandboxState,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { newStatus } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { IdMap } from '../store/id-map.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { listContainers } from './list-containers.ts';
import { listPodSandboxes } from './list-pod-sandbox.ts';

function container(id: string): CriContainer {
  const config = create(ContainerConfigSchema, {
    metadata: { name: `name of ${id}` },
    image: { image: 'busybox' },
    labels: { of: id },
  });
  const [name, sandboxId, imageRef] = [id, 'pod', 'sha256:1'];
  const metadata = { id, name, sandboxId, config, imageRef, logPath: '', stopSignal: '', processLabel: '' };
  return { id, metadata, status: newStatus(7n), exited: Promise.resolve() };
}

test('a list of containers tells each as it is now', () => {
  const containers = new IdMap<CriContainer>('container');
  const cri = { containers } as Cri;
  const told = (filter?: Parameters<typeof listContainers>[1]) =>
    fromBinary(ListContainersResponseSchema, Buffer.concat(listContainers(cri, filter))).containers;
  assert.deepEqual(told(), []);
  const [one, two] = [container('one'), container('two')];
  containers.set('one', one);
  containers.set('two', two);
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(
      told().map(({ id, metadata, podSandboxId, state, createdAt, labels, image }) => [
        id,
        metadata?.name,
        podSandboxId,
        state,
        createdAt,
        labels['of'],
        image?.image,
      ]),
      ['one', 'two'].map((id) => [id, `name of ${id}`, 'pod', ContainerState.CONTAINER_CREATED, 7n, id, 'busybox']),
    );
  }
  one.status = { ...one.status, startedAt: 8n };
  assert.deepEqual(
    told().map(({ state }) => state),
    [ContainerState.CONTAINER_RUNNING, ContainerState.CONTAINER_CREATED],
  );
  one.status = { ...one.status, finishedAt: 9n };
  assert.equal(told()[0]?.state, ContainerState.CONTAINER_EXITED);
  // Two that were given the same status are still two.
  two.status = one.status;
  assert.deepEqual(
    told().map(({ id }) => id),
    ['one', 'two'],
  );
  containers.delete('one');
  assert.deepEqual(
    told().map(({ id }) => id),
    ['two'],
  );
});

test('a list of pods tells each as it is now', () => {
  const sandboxes = new IdMap<PodSandbox>('sandbox');
  const cri = { sandboxes } as Cri;
  const told = () => fromBinary(ListPodSandboxResponseSchema, Buffer.concat(listPodSandboxes(cri, undefined))).items;
  const config = create(PodSandboxConfigSchema, { metadata: { name: 'a' }, annotations: { note: 'ä' } });
  const pod = {
    id: 'pod',
    metadata: { config, runtimeHandler: 'runc' },
    status: { state: 'ready', pid: 1, createdAt: 7n, exitedAt: 0n, exitStatus: 0 },
  } as PodSandbox;
  sandboxes.set('pod', pod);
  for (let round = 0; round < 2; round++) {
    const [item] = told();
    assert.deepEqual(
      [item?.id, item?.metadata?.name, item?.state, item?.annotations, item?.runtimeHandler],
      ['pod', 'a', PodSandboxState.SANDBOX_READY, { note: 'ä' }, 'runc'],
    );
  }
  pod.status = { ...pod.status, state: 'notready' };
  assert.equal(told()[0]?.state, PodSandboxState.SANDBOX_NOTREADY);
});
