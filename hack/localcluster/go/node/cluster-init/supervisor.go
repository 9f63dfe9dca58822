package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// patience is what a process gets between SIGTERM and SIGKILL. The API server alone would take ten
// seconds to drain its watches, for a cluster whose data is about to be deleted.
const patience = time.Second

// A component is a process that was asked for by name, alive or ended.
type component struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"` // as seen in here
	Alive  bool   `json:"alive"`
	Result string `json:"result"` // how it ended
	ended  chan struct{}
}

type request struct {
	Do   string   `json:"do"` // start, stop or list
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Log  string   `json:"log"`
}

type response struct {
	Error      string       `json:"error"`
	Components []*component `json:"components"`
}

type supervisor struct {
	mutex      sync.Mutex
	components []*component
}

func newSupervisor() *supervisor { return &supervisor{} }

// serve answers one request per connection until SIGTERM, then ends everything.
func (s *supervisor) serve(socket string) error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	// The socket appears under its name only once it listens.
	temporary := filepath.Join(filepath.Dir(socket), ".i.sock")
	os.Remove(temporary)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(temporary, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, socket); err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go s.answer(connection)
		}
	}()
	for {
		if got := <-signals; got != syscall.SIGCHLD {
			break
		}
		s.reap()
	}
	s.endAll(signals)
	return nil
}

// endAll asks every process of the namespace to end. What is left after a second ends with process 1.
func (s *supervisor) endAll(signals chan os.Signal) {
	syscall.Kill(-1, syscall.SIGTERM)
	timeout := time.After(patience)
	for s.reap() {
		select {
		case <-signals:
		case <-timeout:
			return
		}
	}
}

// reap collects every child that has ended; components and orphans of containers alike. It tells
// whether there are children left.
func (s *supervisor) reap() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		if pid == 0 {
			return true
		}
		for _, c := range s.components {
			if c.PID == pid && c.Alive {
				c.Alive = false
				c.Result = describe(status)
				close(c.ended)
			}
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "ended by signal " + status.Signal().String()
	}
	return fmt.Sprintf("ended with status %d", status.ExitStatus())
}

func (s *supervisor) answer(connection net.Conn) {
	defer connection.Close()
	var asked request
	var err error
	if err = json.NewDecoder(connection).Decode(&asked); err == nil {
		switch asked.Do {
		case "start":
			err = s.start(asked)
		case "stop":
			err = s.stop(asked.Name)
		}
	}
	s.mutex.Lock()
	reply := response{Components: s.components}
	if err != nil {
		reply.Error = err.Error()
	}
	text, _ := json.Marshal(reply)
	s.mutex.Unlock()
	connection.Write(text)
}

// start runs a component unless it runs already. The lock is held over the fork: a child that ends
// at once is known by name before it is reaped.
func (s *supervisor) start(asked request) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for i, c := range s.components {
		if c.Name == asked.Name {
			if c.Alive {
				return nil
			}
			s.components = append(s.components[:i], s.components[i+1:]...)
			break
		}
	}
	log, err := os.OpenFile(asked.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	pid, err := syscall.ForkExec(asked.Args[0], asked.Args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   asked.Env,
		Files: []uintptr{0, log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", asked.Args[0], err)
	}
	s.components = append(s.components, &component{Name: asked.Name, PID: pid, Alive: true, ended: make(chan struct{})})
	return nil
}

// stop ends one component and what runs in its session: SIGTERM, and SIGKILL after a second.
func (s *supervisor) stop(name string) error {
	s.mutex.Lock()
	var found *component
	for _, c := range s.components {
		if c.Name == name && c.Alive {
			found = c
			syscall.Kill(c.PID, syscall.SIGTERM)
		}
	}
	s.mutex.Unlock()
	if found == nil {
		return nil
	}
	select {
	case <-found.ended:
	case <-time.After(patience):
		syscall.Kill(found.PID, syscall.SIGKILL)
		<-found.ended
	}
	return nil
}
