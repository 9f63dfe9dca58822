package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	endpoint = "berth-gpu.sock"
)

// devicePlugin offers GPUs that exist only as numbers: a container learns which ones it was given
// from NVIDIA_VISIBLE_DEVICES, as with the vendor's own plugin, and gets no device files.
type devicePlugin struct {
	plugin.UnimplementedDevicePluginServer
	devices []*plugin.Device
	stop    <-chan struct{}
}

// runDevicePlugin serves the plugin for as long as it runs. A kubelet that starts empties the folder
// of sockets, so a socket that is gone is the sign to make it again and to register again.
func runDevicePlugin(ctx context.Context, count int) error {
	devices := make([]*plugin.Device, count)
	for i := range devices {
		devices[i] = &plugin.Device{ID: fmt.Sprintf("GPU-%d", i), Health: plugin.Healthy}
	}
	for ctx.Err() == nil {
		if err := serveOnce(ctx, devices); err != nil {
			log.Printf("not registered with the kubelet yet: %v", err)
			wait(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// serveOnce returns nil when the kubelet was restarted, and an error when it cannot be reached.
func serveOnce(ctx context.Context, devices []*plugin.Device) error {
	path := plugin.DevicePluginPath + endpoint
	kubelet, err := os.Stat(plugin.KubeletSocket)
	if err != nil {
		return err
	}
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	server := grpc.NewServer()
	plugin.RegisterDevicePluginServer(server, &devicePlugin{devices: devices, stop: stop})
	go server.Serve(listener)
	defer server.Stop()
	defer close(stop)
	if err := register(ctx); err != nil {
		return err
	}
	log.Printf("registered %d of %s", len(devices), resource)
	for wait(ctx, time.Second) {
		now, err := os.Stat(plugin.KubeletSocket)
		if err != nil || !os.SameFile(kubelet, now) {
			return nil
		}
		if _, err := os.Stat(path); err != nil {
			return nil
		}
	}
	return nil
}

func register(ctx context.Context) error {
	connection, err := grpc.NewClient("unix://"+plugin.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = plugin.NewRegistrationClient(connection).Register(ctx, &plugin.RegisterRequest{
		Version: plugin.Version, Endpoint: endpoint, ResourceName: resource,
	})
	return err
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (p *devicePlugin) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

func (p *devicePlugin) ListAndWatch(_ *plugin.Empty, stream grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	select {
	case <-p.stop:
	case <-stream.Context().Done():
	}
	return nil
}

func (p *devicePlugin) Allocate(_ context.Context, asked *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	answer := &plugin.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return answer, nil
}
