/**
 * The `node` key model of encrypted images: the keys are on this machine, where the decoder is configured to look, and all it needs from
 * the daemon is the layer's descriptor, whose annotations hold the wrapped key.
 */
import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { type Descriptor, descriptorToJson } from '@gantry/oci';

/** Ids under which containerd's configuration has the decoder of imgcrypt. */
const decoders = ['io.containerd.ocicrypt.decoder.v1.tar', 'io.containerd.ocicrypt.decoder.v1.tar.gzip'];

/** Payloads for an encrypted layer, by processor id; none for any other. */
export function nodeKeyPayloads(layer: Descriptor): Record<string, Any> {
  if (!layer.mediaType.endsWith('+encrypted')) return {};
  const payload = { DecryptConfig: { Parameters: null }, Descriptor: descriptorToJson(layer) };
  const value = Buffer.from(JSON.stringify(payload));
  const any = create(AnySchema, { typeUrl: 'io.containerd.ocicrypt.v1.Payload', value });
  return Object.fromEntries(decoders.map((id) => [id, any]));
}
