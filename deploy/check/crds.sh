#!/usr/bin/env bash
# Fetches the CRDs of the versions that deploy/eks/common.sh installs, for deploy/check/crds.py.
#
# usage: deploy/check/crds.sh [FOLDER]      (default: .crds in the repository's root)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.crds}
# shellcheck source=deploy/eks/versions.sh
source deploy/eks/versions.sh
mkdir -p "$folder"
raw=https://raw.githubusercontent.com
fetch() { curl --fail --silent --show-error --location --output "$folder/$1" "$2"; }
fetch gateway-api.yaml "$GATEWAY_API"
fetch aws-load-balancer-controller.yaml "$GATEWAY_AWS"
fetch keda.yaml "https://github.com/kedacore/keda/releases/download/v$KEDA_VERSION/keda-$KEDA_VERSION-crds.yaml"
for kind in karpenter.sh_nodepools karpenter.k8s.aws_ec2nodeclasses; do
  fetch "$kind.yaml" "$raw/aws/karpenter-provider-aws/v$KARPENTER_VERSION/pkg/apis/crds/$kind.yaml"
done
for kind in rayclusters rayservices; do
  fetch "$kind.yaml" \
    "$raw/ray-project/kuberay/v$KUBERAY_VERSION/helm-chart/kuberay-operator/crds/ray.io_$kind.yaml"
done
