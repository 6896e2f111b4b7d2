import assert from 'node:assert/strict';
import path from 'node:path';
import { it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Diff } from '@gantry/api/gen/services/diff/v1/diff_pb.js';
import { WorkerPool } from '@gantry/archive';
import { differContract } from '../../core/diff/differ-contract.ts';
import { TestingMetadata } from '../../core/metadata/testing-metadata.ts';
import { BackendAway } from '../../core/remote/backend-away.ts';
import { contextOf } from '../../core/request-context.ts';
import { diffService } from '../../services/diff.ts';
import { WalkingDiffer } from '../diff-walking/walking-differ.ts';
import { ProxyConnection } from './proxy-connection.ts';
import { ProxyDiffer } from './proxy-differ.ts';
import { TestingPeer } from './testing-peer.ts';

differContract('proxy', async () => {
  const metadata = await TestingMetadata.open();
  const { content, leases, log, directory } = metadata;
  await leases.create(contextOf('differ-contract'), { id: 'a-lease', labels: {} });
  const pool = new WorkerPool();
  const behind = new WalkingDiffer({ content, pool, temp: path.join(directory, 'temp'), log });
  const peer = await TestingPeer.open((grpc) => grpc.add(Diff, diffService(behind)));
  const connection = new ProxyConnection('differ', peer.address);
  return {
    differ: new ProxyDiffer(connection),
    content,
    async close() {
      await connection.close();
      await peer.close();
      await pool.close();
      await metadata.close();
    },
  };
});

it('a proxied differ wants the layers below in place, and may be away', async () => {
  const connection = new ProxyConnection('differ', '/nowhere/differ.sock');
  const differ = new ProxyDiffer(connection);
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: `sha256:${'0'.repeat(64)}`, size: 1 };
  await assert.rejects(differ.apply(contextOf('x'), layer, [], { standalone: true }), (error) =>
    hasCode(error, Code.FailedPrecondition),
  );
  await assert.rejects(differ.apply(contextOf('x'), layer, []), BackendAway);
  await connection.close();
});
