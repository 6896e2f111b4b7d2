// An NRI plugin on the reference's own stub, for tests: what it is told it appends to `DIR/IDX-NAME.log`, a line of JSON for each call;
// what it answers stands in `DIR/IDX-NAME.json`, read anew for each: `{"CreateContainer": {"adjust": {}, "update": []}}`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

type plugin struct {
	base string
	lock sync.Mutex
	stub stub.Stub
}

type answer struct {
	Adjust json.RawMessage   `json:"adjust"`
	Update []json.RawMessage `json:"update"`
	Error  string            `json:"error"`
	// Milliseconds before it answers.
	Wait int  `json:"wait"`
	Exit bool `json:"exit"`
}

func asJSON(message proto.Message) json.RawMessage {
	text, err := protojson.Marshal(message)
	if err != nil {
		panic(err)
	}
	return text
}

func (p *plugin) say(event string, fields map[string]any) {
	p.lock.Lock()
	defer p.lock.Unlock()
	fields["event"] = event
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	file, err := os.OpenFile(p.base+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fprintf(file, "%s\n", line)
}

func (p *plugin) answer(event string) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	text, err := os.ReadFile(p.base + ".json")
	if err != nil {
		return nil, nil, nil
	}
	all := map[string]answer{}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, nil, err
	}
	mine, ok := all[event]
	if !ok {
		return nil, nil, nil
	}
	if mine.Exit {
		os.Exit(9)
	}
	time.Sleep(time.Duration(mine.Wait) * time.Millisecond)
	if mine.Error != "" {
		return nil, nil, errors.New(mine.Error)
	}
	var adjust *api.ContainerAdjustment
	if mine.Adjust != nil {
		adjust = &api.ContainerAdjustment{}
		if err := protojson.Unmarshal(mine.Adjust, adjust); err != nil {
			return nil, nil, err
		}
	}
	updates := []*api.ContainerUpdate{}
	for _, each := range mine.Update {
		update := &api.ContainerUpdate{}
		if err := protojson.Unmarshal(each, update); err != nil {
			return nil, nil, err
		}
		updates = append(updates, update)
	}
	return adjust, updates, nil
}

func (p *plugin) pod(event string, pod *api.PodSandbox) error {
	p.say(event, map[string]any{"pod": asJSON(pod)})
	_, _, err := p.answer(event)
	return err
}

func (p *plugin) container(event string, pod *api.PodSandbox, container *api.Container) error {
	p.say(event, map[string]any{"pod": asJSON(pod), "container": asJSON(container)})
	_, _, err := p.answer(event)
	return err
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	p.say("Configure", map[string]any{
		"config": config, "runtime": runtime, "version": version,
		"registrationTimeout": p.stub.RegistrationTimeout().String(), "requestTimeout": p.stub.RequestTimeout().String(),
		"environment": os.Environ(),
	})
	return 0, nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	shown := map[string]any{}
	toldPods, toldContainers := []json.RawMessage{}, []json.RawMessage{}
	for _, each := range pods {
		toldPods = append(toldPods, asJSON(each))
	}
	for _, each := range containers {
		toldContainers = append(toldContainers, asJSON(each))
	}
	shown["pods"], shown["containers"] = toldPods, toldContainers
	p.say("Synchronize", shown)
	_, updates, err := p.answer("Synchronize")
	return updates, err
}

func (p *plugin) Shutdown(context.Context) { p.say("Shutdown", map[string]any{}) }

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("RunPodSandbox", pod)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, overhead, resources *api.LinuxResources) error {
	p.say("UpdatePodSandbox", map[string]any{"pod": asJSON(pod), "overhead": asJSON(overhead), "resources": asJSON(resources)})
	_, _, err := p.answer("UpdatePodSandbox")
	return err
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("PostUpdatePodSandbox", pod)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("StopPodSandbox", pod)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("RemovePodSandbox", pod)
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.say("CreateContainer", map[string]any{"pod": asJSON(pod), "container": asJSON(container)})
	return p.answer("CreateContainer")
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.container("PostCreateContainer", pod, container)
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.container("StartContainer", pod, container)
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.container("PostStartContainer", pod, container)
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, resources *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.say("UpdateContainer", map[string]any{"pod": asJSON(pod), "container": asJSON(container), "resources": asJSON(resources)})
	_, updates, err := p.answer("UpdateContainer")
	return updates, err
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.container("PostUpdateContainer", pod, container)
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	p.say("StopContainer", map[string]any{"pod": asJSON(pod), "container": asJSON(container)})
	_, updates, err := p.answer("StopContainer")
	return updates, err
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.container("RemoveContainer", pod, container)
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	p.say("ValidateContainerAdjustment", map[string]any{"request": asJSON(request)})
	_, _, err := p.answer("ValidateContainerAdjustment")
	return err
}

func main() {
	socket := flag.String("socket-path", "", "the runtime's socket")
	name := flag.String("name", os.Getenv("NRI_PLUGIN_NAME"), "")
	index := flag.String("idx", os.Getenv("NRI_PLUGIN_IDX"), "")
	directory := flag.String("dir", "", "")
	flag.Parse()
	p := &plugin{base: filepath.Join(*directory, *index+"-"+*name)}
	// One that the runtime has started must not say who it is.
	options := []stub.Option{}
	if *socket != "" {
		options = append(options, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index))
	}
	var err error
	if p.stub, err = stub.New(p, options...); err == nil {
		err = p.stub.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
