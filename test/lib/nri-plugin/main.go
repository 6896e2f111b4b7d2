// An NRI plugin on the reference's own stub, for tests: it prints every event as a line, and changes containers whose annotation
// `adjust.test` says so. `npm test` compiles it in a module of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

type plugin struct{}

func say(event string, pod *api.PodSandbox, container *api.Container) {
	fmt.Printf("%s %s %s\n", event, pod.GetName(), container.GetName())
}

func (plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	fmt.Printf("Configure %q %s %s\n", config, runtime, version)
	return 0, nil
}

func (plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	fmt.Printf("Synchronize %d %d\n", len(pods), len(containers))
	return nil, nil
}

func (plugin) Shutdown(context.Context) { fmt.Println("Shutdown") }

func (plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	say("RunPodSandbox", pod, nil)
	return nil
}

func (plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	say("StopPodSandbox", pod, nil)
	return nil
}

func (plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	say("RemovePodSandbox", pod, nil)
	return nil
}

func (plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	say("CreateContainer", pod, container)
	if container.GetAnnotations()["adjust.test"] != "yes" {
		return nil, nil, nil
	}
	adjust := &api.ContainerAdjustment{}
	adjust.AddAnnotation("added.test", "by-go")
	adjust.RemoveAnnotation("removed.test")
	adjust.AddEnv("FROM_GO", "1")
	adjust.AddMount(&api.Mount{Destination: "/go", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}})
	adjust.AddDevice(&api.LinuxDevice{Path: "/dev/go", Type: "c", Major: 1, Minor: 5})
	adjust.AddRlimit("RLIMIT_NOFILE", 2048, 1024)
	adjust.AddRlimit("RLIMIT_FSIZE", ^uint64(0), ^uint64(0))
	adjust.SetLinuxMemoryLimit(96 << 20)
	adjust.SetLinuxCPUShares(321)
	adjust.SetLinuxPidLimits(77)
	adjust.SetLinuxOomScoreAdj(&[]int{950}[0])
	adjust.SetLinuxSysctl("net.ipv4.ip_default_ttl", "78")
	adjust.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/true"}}})
	return adjust, nil, nil
}

func (plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	say("PostCreateContainer", pod, container)
	return nil
}

func (plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	say("StartContainer", pod, container)
	return nil
}

func (plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	say("PostStartContainer", pod, container)
	return nil
}

func (plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, resources *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	say("UpdateContainer", pod, container)
	update := &api.ContainerUpdate{ContainerId: container.GetId()}
	update.SetLinuxCPUShares(resources.GetCpu().GetShares().GetValue() * 2)
	return []*api.ContainerUpdate{update}, nil
}

func (plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	say("PostUpdateContainer", pod, container)
	return nil
}

func (plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	say("StopContainer", pod, container)
	return nil, nil
}

func (plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	say("RemoveContainer", pod, container)
	return nil
}

func (plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	say("ValidateContainerAdjustment", request.GetPod(), request.GetContainer())
	if owner, claimed := request.GetOwners().EnvOwner(request.GetContainer().GetId(), "FORBIDDEN"); claimed {
		return fmt.Errorf("plugin %s may not set FORBIDDEN", owner)
	}
	return nil
}

func main() {
	socket := flag.String("socket-path", "", "the runtime's socket")
	flag.Parse()
	options := []stub.Option{}
	if *socket != "" {
		options = append(options, stub.WithSocketPath(*socket), stub.WithPluginName("go"), stub.WithPluginIdx("40"))
	}
	nri, err := stub.New(plugin{}, options...)
	if err == nil {
		err = nri.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
