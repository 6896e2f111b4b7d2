import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';

/** A message as bytes already, in one piece or several that follow each other. */
export class EncodedMessage {
  readonly #pieces: readonly Uint8Array[];

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
  }

  bytes(): Uint8Array {
    return this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
  }
}

/**
 * What a handler may answer in place of a message, if it keeps the message's parts encoded. It goes out as it is: that it is a message of
 * that schema is the handler's word. Nobody can look into it.
 */
export function encodedMessage<D extends DescMessage>(_schema: D, pieces: readonly Uint8Array[]): MessageInitShape<D> {
  return new EncodedMessage(pieces) as unknown as MessageInitShape<D>;
}
