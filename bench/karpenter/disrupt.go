package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/awslabs/operatorpkg/object"
	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	fakeclient "sigs.k8s.io/controller-runtime/pkg/client/fake"

	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/fake"
	"sigs.k8s.io/karpenter/pkg/controllers/disruption"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/test/v1alpha1"
)

// Nodes with what runs on them, as `assay-bench disrupt` writes them.
type cluster struct {
	Types []instanceType `json:"instanceTypes"`
	Nodes []struct {
		Name         string `json:"name"`
		InstanceType string `json:"instanceType"`
		Zone         string `json:"zone"`
		CapacityType string `json:"capacityType"`
		Pods         []struct {
			Name        string `json:"name"`
			MilliCPU    int64  `json:"milliCpu"`
			MemoryBytes int64  `json:"memoryBytes"`
		} `json:"pods"`
	} `json:"nodes"`
}

type disruptReport struct {
	Nodes      int `json:"nodes"`
	Pods       int `json:"pods"`
	Candidates int `json:"candidates"`
	// Finding the candidates, once for a pass.
	CandidatesSeconds float64 `json:"candidatesSeconds"`
	// One simulation for each of so many candidates, each alone.
	Alone        int     `json:"alone"`
	AloneSeconds float64 `json:"aloneSeconds"`
	Deletable    int     `json:"deletable"`
	// The search for the longest prefix of so many candidates that can go together.
	Together        int     `json:"together"`
	TogetherSeconds float64 `json:"togetherSeconds"`
	Simulations     int     `json:"simulations"`
	PeakRssBytes    int64   `json:"peakRssBytes"`
}

// A client that answers for pods of a node from an index, as the cache of a running Karpenter does, and gives copies, as that
// does; for the few objects of other kinds it is the fake client. The fake client alone would look at every pod each time.
type cached struct {
	client.Client
	pods map[string][]*corev1.Pod
}

func (c *cached) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	pods, ok := list.(*corev1.PodList)
	if !ok {
		return c.Client.List(ctx, list, opts...)
	}
	asked := client.ListOptions{}
	asked.ApplyOptions(opts)
	if asked.FieldSelector == nil {
		return fmt.Errorf("pods are asked for without the node they are on")
	}
	name, found := asked.FieldSelector.RequiresExactMatch("spec.nodeName")
	if !found || asked.FieldSelector.String() != fields.OneTermEqualSelector("spec.nodeName", name).String() {
		return fmt.Errorf("pods are asked for by %s", asked.FieldSelector)
	}
	pods.Items = make([]corev1.Pod, 0, len(c.pods[name]))
	for _, pod := range c.pods[name] {
		pods.Items = append(pods.Items, *pod.DeepCopy())
	}
	return nil
}

// Puts candidates of a cluster to Karpenter's own simulation of scheduling, with its own state of the cluster.
func disrupt(path string, alone int, longest time.Duration) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var in cluster
	if err := json.NewDecoder(bufio.NewReader(file)).Decode(&in); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	ctx := options.ToContext(injection.WithControllerName(context.Background(), "disruption"), &options.Options{
		PreferencePolicy:  options.PreferencePolicyRespect,
		MinValuesPolicy:   options.MinValuesPolicyStrict,
		BatchMaxDuration:  10 * time.Second,
		BatchIdleDuration: time.Second,
		IgnoreDRARequests: true,
	})
	types := instanceTypes(in.Types)
	byName := map[string]*cloudprovider.InstanceType{}
	for _, one := range types {
		byName[one.Name] = one
	}
	provider := fake.NewCloudProvider()
	provider.InstanceTypes = types
	pool := readyPool()
	inner := fakeclient.NewClientBuilder().WithObjects(pool).WithStatusSubresource(pool).Build()
	cache := &cached{Client: inner, pods: map[string][]*corev1.Pod{}}
	now := &clock.RealClock{}
	recorder := events.NewRecorder(&record.FakeRecorder{})
	cluster := state.NewCluster(now, cache, provider)
	pods := 0
	for i, one := range in.Nodes {
		for _, pod := range one.Pods {
			pods++
			cache.pods[one.Name] = append(cache.pods[one.Name], running(pods, pod.Name, one.Name, pod.MilliCPU, pod.MemoryBytes))
		}
		bought := byName[one.InstanceType]
		if bought == nil {
			return fmt.Errorf("node %s: there is no type %s", one.Name, one.InstanceType)
		}
		claim, node := joined(i, one.Name, one.Zone, one.CapacityType, bought)
		cluster.UpdateNodeClaim(claim)
		if err := cluster.UpdateNode(ctx, node); err != nil {
			return fmt.Errorf("node %s: %w", one.Name, err)
		}
	}
	provisioner := provisioning.NewProvisioner(cache, recorder, provider, cluster, now, nil, nil)
	queue := disruption.NewQueue(cache, recorder, cluster, now, provisioner)

	started := time.Now()
	every := func(context.Context, *disruption.Candidate) bool { return true }
	candidates, err := disruption.GetCandidates(ctx, cluster, cache, recorder, now, provider, every, disruption.GracefulDisruptionClass, queue)
	if err != nil {
		return err
	}
	sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].SavingsRatio() > candidates[j].SavingsRatio() })
	out := disruptReport{Nodes: len(in.Nodes), Pods: pods, Candidates: len(candidates), CandidatesSeconds: time.Since(started).Seconds()}
	if len(candidates) == 0 {
		return fmt.Errorf("Karpenter takes no node of %d for a candidate", len(in.Nodes))
	}
	simulate := func(candidates ...*disruption.Candidate) (scheduling.Results, error) {
		return disruption.SimulateScheduling(ctx, cache, cluster, provisioner, now, recorder,
			[]scheduling.Options{scheduling.IsConsolidationSimulation}, candidates...)
	}
	fits := func(results scheduling.Results) bool {
		return results.AllNonPendingPodsScheduled() && len(results.NewNodeClaims) <= 1
	}

	started = time.Now()
	for _, candidate := range candidates[:min(alone, len(candidates))] {
		results, err := simulate(candidate)
		if err != nil {
			return err
		}
		out.Alone++
		if results.AllNonPendingPodsScheduled() && len(results.NewNodeClaims) == 0 {
			out.Deletable++
		}
		if time.Since(started) > longest {
			break
		}
	}
	out.AloneSeconds = time.Since(started).Seconds()

	// As multi-node consolidation does: the first hundred, and the longest prefix of them that fits.
	started = time.Now()
	first := candidates[:min(100, len(candidates))]
	low, high := 1, len(first)-1
	for low <= high && time.Since(started) < longest {
		middle := (low + high) / 2
		results, err := simulate(first[:middle+1]...)
		if err != nil {
			return err
		}
		out.Simulations++
		if fits(results) {
			low = middle + 1
		} else {
			high = middle - 1
		}
	}
	out.Together, out.TogetherSeconds = len(first), time.Since(started).Seconds()
	out.PeakRssBytes = peakRss()
	return json.NewEncoder(os.Stdout).Encode(out)
}

func readyPool() *v1.NodePool {
	zero := v1.NillableDuration{Duration: new(time.Duration)}
	gvk := object.GVK(&v1alpha1.TestNodeClass{})
	pool := &v1.NodePool{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec: v1.NodePoolSpec{
			Disruption: v1.Disruption{
				ConsolidationPolicy: v1.ConsolidationPolicyWhenEmptyOrUnderutilized,
				ConsolidateAfter:    zero,
				Budgets:             []v1.Budget{{Nodes: "100%"}},
			},
			Template: v1.NodeClaimTemplate{Spec: v1.NodeClaimTemplateSpec{
				NodeClassRef: &v1.NodeClassReference{Group: gvk.Group, Kind: gvk.Kind, Name: "default"},
			}},
		},
	}
	for _, condition := range []string{v1.ConditionTypeValidationSucceeded, v1.ConditionTypeNodeClassReady, status.ConditionReady} {
		pool.StatusConditions().SetTrue(condition)
	}
	return pool
}

func running(number int, name, node string, milliCPU, memoryBytes int64) *corev1.Pod {
	controller := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: uid(number),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "app", UID: uid(0), Controller: &controller}},
		},
		Spec: corev1.PodSpec{
			NodeName: node,
			Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(memoryBytes, resource.BinarySI),
			}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// A node that joined long ago, and the claim it was bought for.
func joined(number int, name, zone, capacityType string, bought *cloudprovider.InstanceType) (*v1.NodeClaim, *corev1.Node) {
	labels := map[string]string{
		v1.NodePoolLabelKey:            "default",
		v1.NodeRegisteredLabelKey:      "true",
		v1.NodeInitializedLabelKey:     "true",
		v1.CapacityTypeLabelKey:        capacityType,
		corev1.LabelTopologyZone:       zone,
		corev1.LabelInstanceTypeStable: bought.Name,
		corev1.LabelHostname:           name,
	}
	for key, requirement := range bought.Requirements {
		if _, found := labels[key]; !found && requirement.Len() == 1 {
			labels[key] = requirement.Any()
		}
	}
	id := fmt.Sprintf("fake:///%s", name)
	long := metav1.NewTime(time.Now().Add(-24 * time.Hour))
	claim := &v1.NodeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, UID: uid(1_000_000 + number), CreationTimestamp: long},
		Status: v1.NodeClaimStatus{
			NodeName: name, ProviderID: id, Capacity: bought.Capacity, Allocatable: bought.Allocatable(),
		},
	}
	for _, condition := range []string{
		v1.ConditionTypeLaunched, v1.ConditionTypeRegistered, v1.ConditionTypeInitialized, v1.ConditionTypeConsolidatable,
	} {
		claim.StatusConditions().SetTrue(condition)
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, UID: uid(2_000_000 + number), CreationTimestamp: long},
		Spec:       corev1.NodeSpec{ProviderID: id},
		Status: corev1.NodeStatus{
			Capacity: bought.Capacity, Allocatable: bought.Allocatable(),
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	return claim, node
}
