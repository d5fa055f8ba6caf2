#!/bin/sh
# A provider for Kubernetes: a VolumeSnapshot of the claim that holds the data, waited for until the driver has cut it.
#   jetwire snapshot run --exec docs/recipes/csi-snapshot.sh NAMESPACE CLAIM SNAPSHOT_CLASS
set -eu
namespace=$1
claim=$2
class=$3
name="jetwire-$(date -u +%Y%m%dt%H%M%Sz)"
kubectl apply --namespace "$namespace" --filename - <<YAML
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata:
  name: $name
spec:
  volumeSnapshotClassName: $class
  source:
    persistentVolumeClaimName: $claim
YAML
# The volume is cut when creationTime is there; readyToUse may come much later and needs no freeze.
kubectl wait --namespace "$namespace" --timeout=60s --for=jsonpath='{.status.creationTime}' "volumesnapshot/$name"
