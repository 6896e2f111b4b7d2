/** The header that carries the namespace over gRPC. */
export const namespaceHeader = 'containerd-namespace';
/** The header that carries the namespace over ttrpc; gRPC clients of containerd may send it too. */
export const ttrpcNamespaceHeader = 'containerd-namespace-ttrpc';
/** The header that carries the lease under which content and snapshots are made. */
export const leaseHeader = 'containerd-lease';
/** The header with a serialised google.rpc.Status, sent by gRPC servers when an error has details. */
export const statusDetailsHeader = 'grpc-status-details-bin';
