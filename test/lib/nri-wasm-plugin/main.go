//go:build wasip1

// An NRI plugin in WebAssembly on the reference's own bindings, for tests: it logs every event, and does what annotations of a container
// tell it to. `npm test` compiles it in a module of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/containerd/nri/pkg/api"
)

type plugin struct{}

var host = api.NewHostFunctions()

func say(level api.LogRequest_Level, format string, arguments ...any) {
	host.Log(context.Background(), &api.LogRequest{Level: level, Msg: "wasm: " + fmt.Sprintf(format, arguments...)})
}

func told(event string, pod *api.PodSandbox, container *api.Container) {
	say(api.LogRequest_LEVEL_INFO, "%s %s %s", event, pod.GetName(), container.GetName())
}

func (plugin) Configure(_ context.Context, request *api.ConfigureRequest) (*api.ConfigureResponse, error) {
	say(api.LogRequest_LEVEL_WARN, "Configure %q %s %s", request.GetConfig(), request.GetRuntimeName(), request.GetNRIVersion())
	_, err := os.ReadFile("/etc/passwd")
	say(api.LogRequest_LEVEL_INFO, "files: %v, environment: %d, arguments: %d", err, len(os.Environ()), len(os.Args))
	return &api.ConfigureResponse{}, nil
}

func (plugin) Synchronize(_ context.Context, request *api.SynchronizeRequest) (*api.SynchronizeResponse, error) {
	say(api.LogRequest_LEVEL_INFO, "Synchronize %d %d", len(request.GetPods()), len(request.GetContainers()))
	return &api.SynchronizeResponse{More: request.GetMore()}, nil
}

func (plugin) Shutdown(context.Context, *api.Empty) (*api.Empty, error) {
	say(api.LogRequest_LEVEL_INFO, "Shutdown")
	return &api.Empty{}, nil
}

func (plugin) RunPodSandbox(_ context.Context, request *api.RunPodSandboxRequest) (*api.RunPodSandboxResponse, error) {
	told("RunPodSandbox", request.GetPod(), nil)
	return &api.RunPodSandboxResponse{}, nil
}

func (plugin) UpdatePodSandbox(_ context.Context, request *api.UpdatePodSandboxRequest) (*api.UpdatePodSandboxResponse, error) {
	told("UpdatePodSandbox", request.GetPod(), nil)
	return &api.UpdatePodSandboxResponse{}, nil
}

func (plugin) PostUpdatePodSandbox(_ context.Context, request *api.PostUpdatePodSandboxRequest) (*api.PostUpdatePodSandboxResponse, error) {
	told("PostUpdatePodSandbox", request.GetPod(), nil)
	return &api.PostUpdatePodSandboxResponse{}, nil
}

func (plugin) StopPodSandbox(_ context.Context, request *api.StopPodSandboxRequest) (*api.StopPodSandboxResponse, error) {
	told("StopPodSandbox", request.GetPod(), nil)
	return &api.StopPodSandboxResponse{}, nil
}

func (plugin) RemovePodSandbox(_ context.Context, request *api.RemovePodSandboxRequest) (*api.RemovePodSandboxResponse, error) {
	told("RemovePodSandbox", request.GetPod(), nil)
	return &api.RemovePodSandboxResponse{}, nil
}

func (plugin) CreateContainer(_ context.Context, request *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	told("CreateContainer", request.GetPod(), request.GetContainer())
	adjust := &api.ContainerAdjustment{}
	switch wish := request.GetContainer().GetAnnotations()["wasm.test"]; wish {
	case "adjust":
		adjust.AddEnv("FROM_WASM", strconv.Itoa(len(request.GetContainer().GetArgs())))
		adjust.AddAnnotation("added.test", "by-wasm")
		adjust.SetLinuxCPUShares(345)
	case "refuse":
		return nil, errors.New("wasm refuses it")
	case "panic":
		panic("wasm has had enough")
	case "exit":
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Hour)
	case "eat":
		var eaten [][]byte
		for {
			eaten = append(eaten, make([]byte, 16<<20))
			for at := 0; at < 16<<20; at += 4096 {
				eaten[len(eaten)-1][at] = 1
			}
		}
	case "talk":
		for {
			say(api.LogRequest_LEVEL_INFO, "and on")
		}
	}
	return &api.CreateContainerResponse{Adjust: adjust}, nil
}

func (plugin) PostCreateContainer(_ context.Context, request *api.PostCreateContainerRequest) (*api.PostCreateContainerResponse, error) {
	told("PostCreateContainer", request.GetPod(), request.GetContainer())
	return &api.PostCreateContainerResponse{}, nil
}

func (plugin) StartContainer(_ context.Context, request *api.StartContainerRequest) (*api.StartContainerResponse, error) {
	told("StartContainer", request.GetPod(), request.GetContainer())
	return &api.StartContainerResponse{}, nil
}

func (plugin) PostStartContainer(_ context.Context, request *api.PostStartContainerRequest) (*api.PostStartContainerResponse, error) {
	told("PostStartContainer", request.GetPod(), request.GetContainer())
	return &api.PostStartContainerResponse{}, nil
}

func (plugin) UpdateContainer(_ context.Context, request *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	told("UpdateContainer", request.GetPod(), request.GetContainer())
	return &api.UpdateContainerResponse{}, nil
}

func (plugin) PostUpdateContainer(_ context.Context, request *api.PostUpdateContainerRequest) (*api.PostUpdateContainerResponse, error) {
	told("PostUpdateContainer", request.GetPod(), request.GetContainer())
	return &api.PostUpdateContainerResponse{}, nil
}

func (plugin) StopContainer(_ context.Context, request *api.StopContainerRequest) (*api.StopContainerResponse, error) {
	told("StopContainer", request.GetPod(), request.GetContainer())
	return &api.StopContainerResponse{}, nil
}

func (plugin) RemoveContainer(_ context.Context, request *api.RemoveContainerRequest) (*api.RemoveContainerResponse, error) {
	told("RemoveContainer", request.GetPod(), request.GetContainer())
	return &api.RemoveContainerResponse{}, nil
}

func (plugin) StateChange(_ context.Context, event *api.StateChangeEvent) (*api.Empty, error) {
	told("StateChange", event.GetPod(), event.GetContainer())
	return &api.Empty{}, nil
}

func (plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) (*api.ValidateContainerAdjustmentResponse, error) {
	told("ValidateContainerAdjustment", request.GetPod(), request.GetContainer())
	return &api.ValidateContainerAdjustmentResponse{}, nil
}

func init() { api.RegisterPlugin(plugin{}) }

func main() {}
