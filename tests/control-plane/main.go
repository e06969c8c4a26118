// Command control-plane is kube-apiserver, kube-controller-manager,
// kube-scheduler and etcd in one program: the first argument says which, the
// rest are that component's own flags. Tests start one process for each,
// since the components share global registries and cannot live in one.
//
// A process ends when its standard input does, so that none outlives the
// test that started it, however that test ended.
package main

import (
	"fmt"
	"io"
	"os"
	_ "time/tzdata" // time zones of CronJobs on a machine without them

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = "usage: control-plane etcd|kube-apiserver|kube-controller-manager|kube-scheduler [flags]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	component, flags := os.Args[1], os.Args[2:]
	// Clients name themselves after the program, and so does the manager of
	// the fields that they write.
	os.Args[0] = component
	go endWithParent()

	switch component {
	case "etcd":
		etcdmain.Main(append([]string{"etcd"}, flags...))
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand(), flags)
	case "kube-controller-manager":
		run(controllermanager.NewControllerManagerCommand(), flags)
	case "kube-scheduler":
		run(scheduler.NewSchedulerCommand(), flags)
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
}

func run(command *cobra.Command, flags []string) {
	command.SetArgs(flags)
	os.Exit(cli.Run(command))
}

// endWithParent reads until the other end of standard input is closed, which
// the kernel does for a parent that dies without a word. It ends at once: the
// data of a test cluster goes with it.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
