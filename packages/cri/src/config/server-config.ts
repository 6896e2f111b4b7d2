import { field, schema } from '@gantry/daemon/core/plugin/config-schema.ts';
import type { ConfigOf } from './images-config.ts';

/** `[plugins.'io.containerd.grpc.v1.cri']`: the server for exec, attach and port-forward. */
export const serverConfig = schema({
  disable_tcp_service: field.boolean(true),
  stream_server_address: field.string('127.0.0.1'),
  stream_server_port: field.string('0'),
  stream_idle_timeout: field.duration('4h0m0s'),
  enable_tls_streaming: field.boolean(false),
  x509_key_pair_streaming: field.table({
    tls_cert_file: field.string(''),
    tls_key_file: field.string(''),
  }),
});

export type ServerConfig = ConfigOf<typeof serverConfig>;
