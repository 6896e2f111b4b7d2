// Kubelets list all pods and containers every second: each is encoded once for every status that it has.
import { type DescMessage, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

/** The number of the repeated field in all answers that are lists. */
const listField = 1;

interface Told {
  readonly id: string;
  readonly entry: Uint8Array;
}

/** Things as entries of an encoded list, kept as long as what they are made of. */
export class EncodedList<Status extends object, D extends DescMessage> {
  readonly #schema: D;
  readonly #told = new WeakMap<Status, Told>();

  constructor(schema: D) {
    this.#schema = schema;
  }

  /** @param status replaced, never changed, when anything of the message becomes different @param message asked for what is not known yet */
  entry(id: string, status: Status, message: () => MessageShape<D>): Uint8Array {
    const known = this.#told.get(status);
    if (known?.id === id) return known.entry;
    const bytes = toBinary(this.#schema, message());
    // A copy of just that size: the writer's memory has room that nobody needs.
    const entry = Uint8Array.from(new BinaryWriter().tag(listField, WireType.LengthDelimited).bytes(bytes).finish());
    this.#told.set(status, { id, entry });
    return entry;
  }
}
