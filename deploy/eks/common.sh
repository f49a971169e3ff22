# What install.sh, cleanup.sh and snapshot.sh share. Sourced, not run.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
readonly HERE ROOT
# shellcheck source=deploy/eks/versions.sh
source "$HERE/versions.sh"

readonly TUNNEL_PORT=${TUNNEL_PORT:-8443}
readonly SNAPSHOT_WITH="Bottlerocket data volume with" # a snapshot's description, and its image

dry_run=false
step=0
steps=0

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Takes an argument that every script here knows: one of the shared options, or the configuration.
take_shared() {
  case $1 in
    --dry-run) dry_run=true ;;
    --yes) yes=true ;;
    --help) usage; exit ;;
    -*) fail "$1 is not an option; see --help" ;;
    *) [ -z "$configuration" ] || fail "one configuration at a time"; configuration=$1 ;;
  esac
}

# Announces the next step, with how far we are.
begin() {
  step=$((step + 1))
  printf '\n[%d/%d %s] %s\n' "$step" "$steps" "$(date +%H:%M:%S)" "$*"
}

# Runs a command, or in a dry run shows it.
run() {
  if $dry_run; then
    printf '    %s\n' "$(printf '%q ' "$@")"
  else
    "$@"
  fi
}


# Reads the facts of a configuration into variables of their names; ends where it is wrong.
read_configuration() {
  [ -f "$1" ] || fail "$1 is not there; ready ones: $(cd "$ROOT" && echo deploy/eks/*.yaml)"
  configuration=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
  local facts
  facts=$(PYTHONPATH="$ROOT/deploy/tools:$ROOT/deploy/operators/aws-eks" \
    "$tools/python" -m sd_aws_eks.describe "$configuration") || fail "correct $1 first"
  while IFS='=' read -r key value; do
    printf -v "$key" '%s' "$value"
  done <<<"$facts"
  folder=${folder:-$PWD/$name}
  export AWS_REGION=$region AWS_DEFAULT_REGION=$region AWS_PAGER=
  export KUBECONFIG=$folder/kubeconfig # never the user's own
}

# Ends unless every program is there, and the account answers.
need() {
  local missing=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} -eq 0 ] || $dry_run || fail "please install: ${missing[*]}"
  if ! $dry_run; then
    account=$(aws sts get-caller-identity --query Account --output text) \
      || fail "AWS does not know you; run: aws sso login, or set AWS_PROFILE"
    say "    account $account, region $region, cluster $cluster_name, files in $folder"
  fi
}

# has WORD LIST: whether a word is in a list of words.
has() { [[ " $2 " == *" $1 "* ]]; }

# installed: the releases of helm that install.sh made for this deployment, by their label.
installed() { helm list --all-namespaces --selector "deployment=$name" --short | tr '\n' ' '; }

# controllers: what install.sh puts beside the service, as namespace/release. Of an existing cluster it is
# what carries the deployment's label: another release of the same name is its owner's.
controllers() {
  local one mine=
  if $existing && ! $dry_run; then mine=$(installed) || return; fi
  for one in kube-system/neuron kube-system/karpenter kube-system/karpenter-crd \
    kube-system/aws-load-balancer-controller keda/keda kuberay-operator/kuberay-operator; do
    if [ -n "$mine" ]; then
      if has "${one#*/}" "$mine"; then echo "$one"; fi
    elif ! $existing || $dry_run; then
      echo "$one"
    fi
  done
}

# Whether the Kubernetes API answers; a private one through a system node, by Session Manager.
reach_cluster() {
  run aws eks update-kubeconfig --region "$region" --name "$cluster_name" --kubeconfig "$KUBECONFIG" \
    || return 1
  if $private; then open_tunnel || return 1; fi
  run kubectl get namespaces --request-timeout=30s >/dev/null
}

# A private endpoint has addresses in the VPC only. The system nodes are there, in the cluster's own
# security group, and Session Manager forwards a local port through one of them.
open_tunnel() {
  local node host
  if $dry_run; then
    say "    aws ssm start-session (a port to the private API, through a system node)"
    return
  fi
  if kubectl get namespaces --request-timeout=10s >/dev/null 2>&1; then return; fi # from inside
  node=$(aws ec2 describe-instances --output text --query 'Reservations[0].Instances[0].InstanceId' \
    --filters "Name=tag:eks:cluster-name,Values=$name" Name=tag:eks:nodegroup-name,Values=system \
    Name=instance-state-name,Values=running)
  if [ -z "$node" ] || [ "$node" = None ]; then return 1; fi
  host=$(aws eks describe-cluster --name "$name" --query cluster.endpoint --output text)
  host=${host#https://}
  aws ssm start-session --target "$node" --document-name AWS-StartPortForwardingSessionToRemoteHost \
    --parameters "host=$host,portNumber=443,localPortNumber=$TUNNEL_PORT" >/dev/null &
  tunnel=$!
  trap 'kill "$tunnel" 2>/dev/null || true' EXIT
  # the certificate is for the endpoint's own name
  kubectl config set-cluster "$(kubectl config view --minify -o 'jsonpath={.clusters[0].name}')" \
    --server "https://127.0.0.1:$TUNNEL_PORT" --tls-server-name "$host" >/dev/null
  for _ in $(seq 30); do
    if kubectl get namespaces --request-timeout=5s >/dev/null 2>&1; then return; fi
    sleep 1
  done
  return 1
}

# bentoctl writes into the folder it runs in.
in_folder() {
  if $dry_run; then
    run "$@"
  else
    (cd "$folder" && "$@")
  fi
}

confirm() {
  if $dry_run || $yes; then return; fi
  read -r -p "$1 [y/N] " answer
  [ "$answer" = y ] || fail "stopped; nothing was changed"
}

tools=$ROOT/.venv-deploy/bin
if [ ! -x "$tools/bentoctl" ]; then
  fail "run \`make deploy-tools\` first"
fi

# leave_models [BUCKET]: Terraform forgets the bucket that it made for models, if it holds any or did, and is not the
# one that is named here. It would take the bucket's protection away first, and then fail to delete it. Sets left
# to its name, or fails where nothing was left.
leave_models() {
  local addresses held
  left=
  addresses=$(terraform -chdir="$folder" state list 2>/dev/null \
    | grep -E '^aws_s3_bucket(_[a-z_]+)?\.models\[') || return 1
  left=$(sed -n 's/^aws_s3_bucket\.models\["\(.*\)"\]$/\1/p' <<<"$addresses")
  [ "$left" != "${1-}" ] || return 1
  if ! held=$(aws s3api list-object-versions --bucket "$left" --max-keys 1 --no-paginate \
    --query '[Versions, DeleteMarkers][][].Key' --output text 2>&1); then
    [[ $held != *NoSuchBucket* ]] || return 1
    fail "it is not known whether models are in s3://$left: $held"
  fi
  if [ -z "$held" ] || [ "$held" = None ]; then return 1; fi
  tr '\n' '\0' <<<"$addresses" | xargs -0 terraform -chdir="$folder" state rm \
    || fail "Terraform does not forget s3://$left"
}
