package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// writeIdentity notes the process id and start time by which the host knows this process. It comes
// before everything else: /proc still is the host's, so /proc/self names the id that is seen there.
func writeIdentity(folder string) error {
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(link)
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	// The command name, field 2, may hold blanks; the start time is field 22.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	text, err := json.Marshal(map[string]any{"pid": pid, "start_time": fields[19]})
	if err != nil {
		return err
	}
	temporary := filepath.Join(folder, ".init.json")
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(folder, "init.json"))
}

// prepare gives the node its own /proc, /run, /var/lib and /var/log. Kubernetes, containerd and the
// network plugins have paths in those that no option moves; here they lead into the cluster's folder.
func prepare(folder, name string) error {
	mounts := []struct {
		what, source, target, kind string
		flags                      uintptr
		data                       string
	}{
		{"keep mounts from the host out", "", "/", "", syscall.MS_REC | syscall.MS_SLAVE, ""},
		{"share mounts with containers", "", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""},
		{"mount /proc", "proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{"mount /run", "tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755"},
		{"mount /var/lib", "overlay", "/var/lib", "overlay", 0, overlay(folder, "/var/lib")},
		{"mount /var/log", "overlay", "/var/log", "overlay", 0, overlay(folder, "/var/log")},
	}
	for _, m := range mounts {
		if m.kind == "overlay" {
			for _, d := range []string{"upper", "work"} {
				if err := os.MkdirAll(nodeFolder(folder, m.target)+"/"+d, 0o755); err != nil {
					return err
				}
			}
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
	}
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	// Pods, Services and the host meet by routes alone; these belong to this network namespace.
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

func nodeFolder(folder, target string) string {
	return folder + "/node/" + strings.ReplaceAll(strings.Trim(target, "/"), "/", "-")
}

func overlay(folder, target string) string {
	own := nodeFolder(folder, target)
	return "lowerdir=" + target + ",upperdir=" + own + "/upper,workdir=" + own + "/work"
}

func loopbackUp() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	var request struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = uint16(net.FlagUp) | syscall.IFF_RUNNING
	_, _, code := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if code != 0 {
		return code
	}
	return nil
}
