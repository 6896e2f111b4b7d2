// containerd's own test suites for snapshotters and content stores, run through containerd's own gRPC clients against the daemon
// at SOCKET. test/e2e/containerd-suites.test.ts builds and runs it.
package suites

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	contentsuite "github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotsproxy "github.com/containerd/containerd/v2/core/snapshots/proxy"
	snapshotsuite "github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

var number atomic.Int64

// freshNamespace gives each test a namespace of its own: the suites use the same names again and again.
func freshNamespace() string {
	return fmt.Sprintf("suite-%d-%d", os.Getpid(), number.Add(1))
}

// dial connects to the daemon. Calls go out in the namespace of their context, or in fallback if that is set.
func dial(fallback string) (*grpc.ClientConn, error) {
	outgoing := func(ctx context.Context) context.Context {
		namespace := fallback
		if namespace == "" {
			namespace, _ = namespaces.Namespace(ctx)
		}
		return metadata.NewOutgoingContext(ctx, metadata.Pairs("containerd-namespace", namespace))
	}
	return grpc.NewClient("unix://"+os.Getenv("SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(outgoing(ctx), method, request, reply, conn, options...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(outgoing(ctx), desc, conn, method, options...)
		}))
}

func TestSnapshotters(t *testing.T) {
	for _, name := range strings.Split(os.Getenv("SNAPSHOTTERS"), ",") {
		t.Run(name, func(t *testing.T) {
			snapshotsuite.SnapshotterSuite(t, name, func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
				conn, err := dial(freshNamespace())
				if err != nil {
					return nil, nil, err
				}
				return snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name), conn.Close, nil
			})
		})
	}
}

func TestContent(t *testing.T) {
	contentsuite.ContentSuite(t, "daemon", func(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
		conn, err := dial("")
		if err != nil {
			return nil, nil, nil, err
		}
		ctx = namespaces.WithNamespace(ctx, freshNamespace())
		ctx = contentsuite.SetContextWrapper(ctx, func(ctx context.Context, shared bool) (context.Context, func(context.Context) error, error) {
			if !shared {
				ctx = namespaces.WithNamespace(ctx, freshNamespace())
			}
			return ctx, func(context.Context) error { return nil }, nil
		})
		return ctx, contentproxy.NewContentStore(conn), conn.Close, nil
	})
}
