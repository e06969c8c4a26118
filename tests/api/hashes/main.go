// Command hashes prints what Karpenter's own code computes as the hashes of the objects in its input, a YAML or JSON list.
// Its output is tests/api/hashes.json, which the hashes of Assay are compared with:
//
//	go run . < objects.yaml > ../hashes.json
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"

	azure "github.com/Azure/karpenter-provider-azure/pkg/apis/v1beta1"
	karpenter "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/yaml"
)

type vector struct {
	Object json.RawMessage `json:"object"`
	Hash   string          `json:"hash"`
}

func main() {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	var objects []json.RawMessage
	if err := yaml.Unmarshal(input, &objects); err != nil {
		log.Fatal(err)
	}
	vectors := []vector{}
	for _, object := range objects {
		var head struct{ Kind string }
		if err := json.Unmarshal(object, &head); err != nil {
			log.Fatal(err)
		}
		var hash string
		switch head.Kind {
		case "NodePool":
			var pool karpenter.NodePool
			if err := json.Unmarshal(object, &pool); err != nil {
				log.Fatal(err)
			}
			hash = pool.Hash()
		case "AKSNodeClass":
			var class azure.AKSNodeClass
			if err := json.Unmarshal(object, &class); err != nil {
				log.Fatal(err)
			}
			hash = class.Hash()
		default:
			log.Fatalf("%s has no hash", head.Kind)
		}
		vectors = append(vectors, vector{object, hash})
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(vectors); err != nil {
		log.Fatal(err)
	}
}
