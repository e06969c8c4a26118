#!/usr/bin/env bash
# Writes go.mod and go.sum for a version of Kubernetes: ./update.sh v1.36.3
#
# k8s.io/kubernetes requires its staging modules at v0.0.0, which no proxy
# serves: each is replaced here by the release of the same number (v1.X.Y
# goes with v0.X.Y). etcd is the one that Kubernetes is built with.
set -euo pipefail
cd "$(dirname "$0")"
version=${1:?which version of k8s.io/kubernetes, as v1.36.3}

upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
{
  echo "module assay.dev/control-plane"
  echo
  sed -n 's/^go /&/p; s/^godebug /\n&/p' "$upstream"
  echo
  echo "require ("
  echo "	k8s.io/kubernetes $version"
  sed -n 's/^\tgo.etcd.io\/etcd\/server\/v3 \(v[0-9.]*\).*/\tgo.etcd.io\/etcd\/server\/v3 \1/p' "$upstream"
  echo ")"
  echo
  echo "replace ("
  sed -n "s/^\t\(k8s.io\/[a-z-]*\) v0.0.0\$/\t\1 => \1 v0${version#v1}/p" "$upstream"
  echo ")"
} >go.mod
go mod tidy
