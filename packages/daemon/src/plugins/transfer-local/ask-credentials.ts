import { fromTimestamp, packAny, unpackAny } from '@gantry/api';
import { AuthRequestSchema, AuthResponseSchema, AuthType } from '@gantry/api/gen/types/transfer/registry_pb.js';
import type { Credentials, CredentialsProvider, CredentialsRequest } from '@gantry/registry';
import { nextMessage } from '../../core/streaming/byte-stream.ts';
import type { MessageStream } from '../../core/streaming/stream-manager.ts';

/** Asks the client over its stream, one question at a time: answers carry nothing that says which they are for. */
export function askForCredentials(stream: MessageStream, reference: string): CredentialsProvider {
  let last: Promise<unknown> = Promise.resolve();
  const ask = async (
    { host, challenges = [] }: CredentialsRequest,
    signal: AbortSignal | undefined,
  ): Promise<Credentials | undefined> => {
    stream.send(packAny(AuthRequestSchema, { host, reference, wwwauthenticate: [...challenges] }));
    const answer = await nextMessage(stream, signal);
    if (answer === undefined) return undefined;
    const { authType, secret, username, expireAt } = unpackAny(AuthResponseSchema, answer);
    const expires = Number(fromTimestamp(expireAt)?.seconds ?? 0) * 1000;
    if (expires > 0 && expires < Date.now()) return undefined;
    // Asked again when it ends.
    const validity = expires > 0 ? { expiresAt: expires } : {};
    if (secret === '') return undefined;
    if (authType === AuthType.HEADER) return { kind: 'header', value: secret, ...validity };
    if (authType === AuthType.REFRESH || username === '') return { kind: 'refresh', token: secret, ...validity };
    if (authType === AuthType.CREDENTIALS) return { kind: 'password', username, secret, ...validity };
    return undefined;
  };
  return (request, signal) => {
    const mine = last.then(() => ask(request, signal));
    last = mine.catch(() => undefined);
    return mine;
  };
}
