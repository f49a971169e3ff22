# shellcheck shell=bash disable=SC2034 # sourced by those who use them
# The one place for versions of what is installed into a cluster.
readonly KARPENTER_VERSION=1.14.1
readonly LOAD_BALANCER_VERSION=3.5.0
readonly GATEWAY_API_VERSION=1.6.1
readonly KEDA_VERSION=2.20.2
readonly KUBERAY_VERSION=1.7.0
readonly NEURON_CHART_VERSION=1.0.0

readonly GATEWAY_API="https://github.com/kubernetes-sigs/gateway-api/releases/download/v$GATEWAY_API_VERSION/standard-install.yaml"
readonly GATEWAY_AWS="https://raw.githubusercontent.com/kubernetes-sigs/aws-load-balancer-controller/v$LOAD_BALANCER_VERSION/config/crd/gateway/gateway-crds.yaml"
