// Command cluster-addons holds what a real cluster gets from its vendors: GPUs and volumes.
//
//	cluster-addons gpu-device-plugin --count 4
//	cluster-addons volume-provisioner --kubeconfig FILE --folder FOLDER
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: cluster-addons gpu-device-plugin|volume-provisioner"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "gpu-device-plugin":
		count := flags.Int("count", 4, "how many GPUs the node has")
		flags.Parse(os.Args[2:])
		fail(runDevicePlugin(ctx, *count))
	case "volume-provisioner":
		kubeconfig := flags.String("kubeconfig", "", "an administrator's kubeconfig")
		folder := flags.String("folder", "", "where volumes are made")
		flags.Parse(os.Args[2:])
		fail(runProvisioner(ctx, *kubeconfig, *folder))
	default:
		fail(fmt.Errorf("no such addon: %s", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
