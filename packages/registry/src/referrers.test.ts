import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MediaType } from '@gantry/oci';
import { defaultHosts } from './hosts.ts';
import { referrersTag } from './referrers.ts';
import { RegistryClient } from './registry-client.ts';
import { TestingRegistry } from './testing-registry.ts';

const subject = { mediaType: MediaType.OciManifest, digest: `sha256:${'a'.repeat(64)}`, size: 1 };
const item = (letter: string, artifactType: string) => ({
  mediaType: MediaType.OciManifest,
  digest: `sha256:${letter.repeat(64)}`,
  size: 2,
  artifactType,
});
const digests = (list: { digest: string }[]): string[] => list.map(({ digest }) => digest[7]!);

test('the referrers API, page by page, with a filter that the registry may ignore', async () => {
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      const url = new URL(request.url ?? '', 'http://x');
      if (url.pathname !== `/v2/a/b/referrers/${subject.digest}`) return false;
      const second = url.searchParams.has('n');
      response.writeHead(200, {
        'content-type': MediaType.OciIndex,
        ...(!second && { link: `<${url.pathname}?n=2>; rel="next"` }),
      });
      const manifests = second ? [item('3', 'sig'), item('4', 'sbom')] : [item('1', 'sig'), item('2', 'sbom')];
      response.end(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.OciIndex, manifests }));
      return true;
    },
  });
  await using client = new RegistryClient({ hosts: defaultHosts('http') });
  const name = `${registry.host}/a/b:1`;
  assert.deepEqual(digests(await client.referrers(name, subject)), ['1', '2', '3', '4']);
  assert.deepEqual(digests(await client.referrers(name, subject, { artifactType: 'sig' })), ['1', '3']);
  assert.ok(registry.requests.every((line) => !line.includes('manifests')));
});

test('the tag where there is no API; nothing where there is neither; trouble is no "nothing"', async () => {
  let status = 404;
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (!request.url?.includes('/referrers/')) return false;
      response.writeHead(status, { 'content-type': 'text/plain' }).end('404 page not found');
      return true;
    },
  });
  await using client = new RegistryClient({ hosts: defaultHosts('http') });
  const name = `${registry.host}/a/b:1`;
  assert.deepEqual(await client.referrers(name, subject), []);
  const index = { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests: [item('5', 'sig')] };
  registry.addManifest('a/b', MediaType.OciIndex, index, referrersTag(subject.digest));
  assert.deepEqual(digests(await client.referrers(name, subject)), ['5']);
  assert.deepEqual(await client.referrers(name, subject, { artifactType: 'other' }), []);
  status = 403;
  await assert.rejects(client.referrers(name, subject), /403/);
});
