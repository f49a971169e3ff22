#!/usr/bin/env bash
# From a configuration to a running service. Run it again at any time: what is there stays or is
# brought up to date.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/eks/install.sh [options] CONFIGURATION

  CONFIGURATION     like deploy/eks/gpu.yaml
  --bento TAG       the Bento to deploy (default: the newest stable_diffusion_fp16, or
                    stable_diffusion_neuron for Inferentia2)
  --folder FOLDER   where files are generated (default: ./NAME-OF-THE-DEPLOYMENT)
  --dry-run         show every command, run none
  --yes             ask nothing
  --help            this text

Needs: terraform, aws, kubectl, helm, and docker, podman or buildah; `make deploy-tools`.
The Kubernetes API must be reachable: see api_allowed_cidrs in the configuration.
TEXT
}

bento= folder= configuration= yes=false
# shellcheck source=deploy/eks/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=8

while [ $# -gt 0 ]; do
  case $1 in
    --bento) bento=${2:?--bento needs a tag}; shift ;;
    --folder) folder=$(mkdir -p "${2:?--folder needs a path}" && cd "$2" && pwd); shift ;;
    *) take_shared "$1" ;;
  esac
  shift
done
[ -n "$configuration" ] || { usage >&2; exit 2; }
read_configuration "$configuration"
if [ -z "$bento" ]; then
  case $accelerator in
    neuron) bento=stable_diffusion_neuron:latest ;;
    *) bento=stable_diffusion_fp16:latest ;;
  esac
fi

queue_mode=$queue # below, $queue is Karpenter's

# chart CHART VERSION NAMESPACE NAME [--set ...]: installs or upgrades it, and waits.
chart() {
  local source=$1 version=$2 namespace=$3 release=$4
  shift 4
  run helm upgrade --install "$release" "$source" --version "$version" \
    --namespace "$namespace" --create-namespace --wait --timeout 10m "$@"
}

begin "Programs and account"
need terraform aws kubectl helm
confirm "Create or update cluster $name in $region? It costs money until cleanup.sh has run."

begin "Generate"
run mkdir -p "$folder"
run "$tools/bentoctl" operator install "$ROOT/deploy/operators/aws-eks"
run cp "$configuration" "$folder/deployment_config.yaml"
in_folder "$tools/bentoctl" generate -f deployment_config.yaml

begin "Image"
if [ -n "$image_uri" ]; then
  say "    $image_uri, as configured"
else
  in_folder "$tools/bentoctl" build -b "$bento" -f deployment_config.yaml
fi
if ! $dry_run && grep -q 'newTag: not-built' "$folder/kubernetes/deployment/kustomization.yaml"; then
  fail "the manifests name no image; see what bentoctl build said"
fi

if $queue_mode; then
  say "    the front door's package"
  # it names the service's samplers: so it is made in the service's environment
  [ -x "$ROOT/.venv/bin/python" ] || $dry_run || fail "run \`make setup\` first"
  run env "PYTHONPATH=$ROOT" "$ROOT/.venv/bin/python" -m hosts.queue.front.package "$folder/front.zip"
fi

begin "AWS: network, cluster, rights (about 15 minutes the first time)"
in_folder terraform init -input=false
in_folder terraform apply -input=false -auto-approve -var-file=bentoctl.tfvars

begin "Access to the cluster"
run aws eks update-kubeconfig --region "$region" --name "$name" --kubeconfig "$KUBECONFIG"
run kubectl get nodes --request-timeout=30s

begin "Controllers"
if $dry_run; then
  queue="$name-interruptions" vpc=VPC
else
  queue=$(terraform -chdir="$folder" output -raw interruption_queue)
  vpc=$(terraform -chdir="$folder" output -raw vpc_id)
fi
run kubectl apply --server-side -f "$GATEWAY_API"
run kubectl apply --server-side -f "$GATEWAY_AWS"
chart oci://public.ecr.aws/karpenter/karpenter-crd "$KARPENTER_VERSION" kube-system karpenter-crd
chart oci://public.ecr.aws/karpenter/karpenter "$KARPENTER_VERSION" kube-system karpenter \
  --set "settings.clusterName=$name" --set "settings.interruptionQueue=$queue"
chart aws-load-balancer-controller "$LOAD_BALANCER_VERSION" kube-system \
  aws-load-balancer-controller --repo https://aws.github.io/eks-charts \
  --set "clusterName=$name" --set "region=$region" --set "vpcId=$vpc" \
  --set serviceAccount.name=aws-load-balancer-controller
chart keda "$KEDA_VERSION" keda keda --repo https://kedacore.github.io/charts
if [ "$accelerator" = neuron ]; then
  # Bottlerocket's NVIDIA variant brings its device plugin; for Neuron it is this chart
  chart oci://public.ecr.aws/neuron/neuron-helm-chart "$NEURON_CHART_VERSION" kube-system neuron \
    --set npd.enabled=false
fi

begin "Service"
run kubectl apply --server-side -f "$folder/kubernetes/base/namespace.yaml"
if [ -n "$api_keys_parameter" ]; then
  if $dry_run; then
    say "    (SSM parameter $api_keys_parameter -> Secret api-keys)"
  else
    # through pipes: the keys are on no command line and in no file
    aws ssm get-parameter --name "$api_keys_parameter" --with-decryption \
      --query Parameter.Value --output text | tr -d '\n' \
      | kubectl create secret generic api-keys --namespace "$NAMESPACE" \
        --from-file=SD_API_KEYS=/dev/stdin --dry-run=client -o yaml \
      | kubectl apply --server-side -f -
  fi
fi
if $queue_mode; then
  if $dry_run; then
    say "    terraform output -raw workers > $folder/kubernetes/deployment/workers.env"
  else
    terraform -chdir="$folder" output -raw workers >"$folder/kubernetes/deployment/workers.env"
  fi
fi

run kubectl apply --server-side -k "$folder/kubernetes/deployment"

if $queue_mode; then
  begin "Done: workers start with the first task"
  if $dry_run; then
    say "dry run: nothing was changed"
    exit
  fi
  say "Tasks: POST $(terraform -chdir="$folder" output -raw tasks_url)/v1alpha2, with the header x-api-key"
  say "Keys:  terraform -chdir=$folder output -json api_keys"
  say "What tasks look like: docs/queue.md. Remove it all: deploy/eks/cleanup.sh $configuration"
  exit
fi
begin "Waiting for a node, the image and the model (up to 30 minutes)"
run kubectl rollout status "deployment/stable-diffusion" --namespace "$NAMESPACE" --timeout=30m
run kubectl wait gateway/stable-diffusion --namespace "$NAMESPACE" --for=condition=Programmed \
  --timeout=10m
if $dry_run; then
  say "dry run: nothing was changed"
  exit
fi
address=$(kubectl get gateway stable-diffusion --namespace "$NAMESPACE" \
  -o 'jsonpath={.status.addresses[0].value}')
cat <<TEXT

Ready: $scheme://$address/

curl -X POST $scheme://$address/txt2img -H 'Content-Type: application/json' -d '{"prompt":"View of a cyberpunk city"}' --output output.jpg
curl -X POST $scheme://$address/img2img -H 'Content-Type: multipart/form-data' -F img="@input.jpg" -F data='{"prompt":"View of a cyberpunk city"}' --output output.jpg

kubectl: export KUBECONFIG=$KUBECONFIG
Remove it all: deploy/eks/cleanup.sh $configuration
TEXT
[ "$scheme" = http ] || say "Point the certificate's name at $address, and use that name."
