import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** An OCI layout with an artifact of some files. */
export function writeArtifact(layout: string, files: Record<string, string>): void {
  mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
  const blob = (text: string) => {
    const hex = createHash('sha256').update(text).digest('hex');
    writeFileSync(path.join(layout, 'blobs/sha256', hex), text);
    return { digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
  };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = {
    schemaVersion: 2,
    mediaType,
    artifactType: 'application/vnd.test.model',
    config: { mediaType: 'application/vnd.oci.empty.v1+json', ...blob('{}') },
    layers: Object.entries(files).map(([title, text]) => ({
      mediaType: 'application/octet-stream',
      ...blob(text),
      annotations: { 'org.opencontainers.image.title': title },
    })),
  };
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  const entry = { mediaType, ...blob(JSON.stringify(manifest)), annotations };
  writeFileSync(path.join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  writeFileSync(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
}
