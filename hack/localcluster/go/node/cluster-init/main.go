// Command cluster-init is the first process of a local cluster.
//
// Each cluster lives in process, mount, network and host name namespaces of its own, and this is
// their process 1: it starts the components, reaps what they leave behind, and when it ends the
// kernel ends every process, mount and interface with it. Nothing of a cluster can outlive it.
//
//	cluster-init start FOLDER NAME LOCK   makes the namespaces, returns at once
//	cluster-init run FOLDER NAME          what runs inside them
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "start":
		lock, err := strconv.Atoi(os.Args[4])
		fail(err)
		fail(start(os.Args[2], os.Args[3], os.NewFile(uintptr(lock), "lock")))
	case len(os.Args) == 4 && os.Args[1] == "run":
		fail(run(os.Args[2], os.Args[3]))
	default:
		fail(fmt.Errorf("usage: cluster-init start|run FOLDER NAME"))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster-init:", err)
		os.Exit(1)
	}
}

// start runs this program again as process 1 of new namespaces. The lock is one that its caller
// holds: process 1 keeps it open for life, so that a lock that is free means no cluster.
func start(folder, name string, lock *os.File) error {
	cmd := exec.Command("/proc/self/exe", "run", folder, name)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
	}
	return cmd.Start()
}

func run(folder, name string) error {
	syscall.CloseOnExec(3)
	syscall.Umask(0o022)
	if err := writeIdentity(folder); err != nil {
		return err
	}
	if err := prepare(folder, name); err != nil {
		return err
	}
	return newSupervisor().serve(folder + "/init.sock")
}
