// Runs Karpenter's own scheduler once on the pods and instance types of a file, and prints what it took.
//
// Usage: karpenter INPUT.json [respect|ignore]
//
//	karpenter disrupt CLUSTER.json CANDIDATES SECONDS
//
// The input is what `assay-bench karpenter` writes: the neutral catalogue on the first line, then a Pod on each. One process
// per run, so that the peak of its memory is that of the run. The scheduler is made anew: nothing is amortised.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	fakeclient "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/fake"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	requirements "sigs.k8s.io/karpenter/pkg/scheduling"
)

type input struct {
	Types []instanceType `json:"instanceTypes"`
	Pods  []*corev1.Pod  `json:"-"`
}

type instanceType struct {
	Name         string              `json:"name"`
	Capacity     corev1.ResourceList `json:"capacity"`
	Overhead     corev1.ResourceList `json:"overhead"`
	Requirements []struct {
		Key      string                      `json:"key"`
		Operator corev1.NodeSelectorOperator `json:"operator"`
		Values   []string                    `json:"values"`
	} `json:"requirements"`
	Offerings []struct {
		Zone         string  `json:"zone"`
		CapacityType string  `json:"capacityType"`
		Price        float64 `json:"price"`
	} `json:"offerings"`
}

type report struct {
	Pods         int     `json:"pods"`
	SetUpSeconds float64 `json:"setUpSeconds"`
	SolveSeconds float64 `json:"solveSeconds"`
	Nodes        int     `json:"nodes"`
	LeftOut      int     `json:"leftOut"`
	PricePerHour float64 `json:"pricePerHour"`
	PeakRssBytes int64   `json:"peakRssBytes"`
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "karpenter:", err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("expected INPUT.json, found nothing")
	}
	log.SetLogger(logging.NopLogger)
	if args[1] == "disrupt" {
		if len(args) != 5 {
			return fmt.Errorf("expected disrupt CLUSTER.json CANDIDATES SECONDS")
		}
		alone, err := strconv.Atoi(args[3])
		if err != nil {
			return fmt.Errorf("number of candidates: %w", err)
		}
		seconds, err := strconv.Atoi(args[4])
		if err != nil {
			return fmt.Errorf("seconds: %w", err)
		}
		return disrupt(args[2], alone, time.Duration(seconds)*time.Second)
	}
	in, err := read(args[1])
	if err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	types := instanceTypes(in.Types)
	for i, pod := range in.Pods {
		pod.UID = uid(i)
	}
	// As Karpenter's own benchmark has it.
	opts := []scheduling.Options{scheduling.NumConcurrentReconciles(5)}
	if len(args) > 2 && strings.EqualFold(args[2], "ignore") {
		opts = append(opts, scheduling.IgnorePreferences)
	}
	ctx := options.ToContext(injection.WithControllerName(context.Background(), "provisioner"), &options.Options{
		PreferencePolicy:  options.PreferencePolicyRespect,
		MinValuesPolicy:   options.MinValuesPolicyStrict,
		BatchMaxDuration:  10 * time.Second,
		BatchIdleDuration: time.Second,
	})

	started := time.Now()
	scheduler, err := newScheduler(ctx, in.Pods, types, opts)
	if err != nil {
		return err
	}
	setUp := time.Since(started)
	started = time.Now()
	results, err := scheduler.Solve(ctx, in.Pods)
	if err != nil {
		return err
	}
	solve := time.Since(started)

	price := 0.0
	for _, claim := range results.NewNodeClaims {
		price += cheapest(claim)
	}
	return json.NewEncoder(os.Stdout).Encode(report{
		Pods: len(in.Pods), SetUpSeconds: setUp.Seconds(), SolveSeconds: solve.Seconds(), Nodes: len(results.NewNodeClaims),
		LeftOut: len(results.PodErrors), PricePerHour: price, PeakRssBytes: peakRss(),
	})
}

func read(path string) (*input, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	decoder := json.NewDecoder(bufio.NewReader(file))
	var in input
	if err := decoder.Decode(&in); err != nil {
		return nil, err
	}
	for decoder.More() {
		pod := &corev1.Pod{}
		if err := decoder.Decode(pod); err != nil {
			return nil, err
		}
		in.Pods = append(in.Pods, pod)
	}
	return &in, nil
}

func newScheduler(ctx context.Context, pods []*corev1.Pod, types []*cloudprovider.InstanceType, opts []scheduling.Options) (*scheduling.Scheduler, error) {
	pool := &v1.NodePool{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec: v1.NodePoolSpec{
			Limits: v1.Limits{
				corev1.ResourceCPU:    resource.MustParse("10000000"),
				corev1.ResourceMemory: resource.MustParse("10000000Gi"),
			},
			Template: v1.NodeClaimTemplate{Spec: v1.NodeClaimTemplateSpec{
				NodeClassRef: &v1.NodeClassReference{Group: "karpenter.test.sh", Kind: "TestNodeClass", Name: "default"},
			}},
		},
	}
	provider := fake.NewCloudProvider()
	provider.InstanceTypes = types
	client := fakeclient.NewFakeClient()
	now := &clock.RealClock{}
	cluster := state.NewCluster(now, client, provider)
	pools := []*v1.NodePool{pool}
	byPool := map[string][]*cloudprovider.InstanceType{pool.Name: types}
	topology, err := scheduling.NewTopology(ctx, client, cluster, nil, pools, byPool, pods, opts...)
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	recorder := events.NewRecorder(&record.FakeRecorder{})
	return scheduling.NewScheduler(ctx, client, pools, cluster, nil, topology, byPool, nil, recorder, now, nil, nil, opts...), nil
}

// The cheapest offering of the claim's types that its requirements allow: what the provider would launch.
func cheapest(claim *scheduling.NodeClaim) float64 {
	least := -1.0
	for _, one := range claim.InstanceTypeOptions {
		for _, offering := range one.Offerings.Available().Compatible(claim.Requirements) {
			if least < 0 || offering.Price < least {
				least = offering.Price
			}
		}
	}
	return max(least, 0)
}

func instanceTypes(list []instanceType) []*cloudprovider.InstanceType {
	var types []*cloudprovider.InstanceType
	for _, one := range list {
		reqs := requirements.NewRequirements(requirements.NewRequirement(corev1.LabelInstanceTypeStable, corev1.NodeSelectorOpIn, one.Name))
		for _, r := range one.Requirements {
			reqs.Add(requirements.NewRequirement(r.Key, r.Operator, r.Values...))
		}
		var offerings cloudprovider.Offerings
		zones, capacityTypes := map[string]bool{}, map[string]bool{}
		for _, o := range one.Offerings {
			zones[o.Zone], capacityTypes[o.CapacityType] = true, true
			offerings = append(offerings, &cloudprovider.Offering{
				Available: true,
				Price:     o.Price,
				Requirements: requirements.NewLabelRequirements(map[string]string{
					corev1.LabelTopologyZone: o.Zone,
					v1.CapacityTypeLabelKey:  o.CapacityType,
				}),
			})
		}
		reqs.Add(requirements.NewRequirement(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, keys(zones)...))
		reqs.Add(requirements.NewRequirement(v1.CapacityTypeLabelKey, corev1.NodeSelectorOpIn, keys(capacityTypes)...))
		types = append(types, &cloudprovider.InstanceType{
			Name: one.Name, Requirements: reqs, Offerings: offerings, Capacity: one.Capacity,
			Overhead: &cloudprovider.InstanceTypeOverhead{KubeReserved: one.Overhead},
		})
	}
	return types
}

func keys(set map[string]bool) []string {
	var list []string
	for key := range set {
		list = append(list, key)
	}
	return list
}

func uid(n int) types.UID {
	return types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", n))
}

func peakRss() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib * 1024
		}
	}
	return 0
}
