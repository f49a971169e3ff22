#!/usr/bin/env bash
# Removes what install.sh made, in the order in which nothing is left behind: first what controllers
# made in AWS, by asking them while they run, then them, then the cluster.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/eks/cleanup.sh [options] CONFIGURATION

  CONFIGURATION     the one given to install.sh
  --folder FOLDER   where install.sh put its files (default: ./NAME-OF-THE-DEPLOYMENT)
  --keep-images     leave the image repository, and snapshots with the image
  --dry-run         show every command, run none
  --yes             ask nothing
  --help            this text

The bucket with models is yours and stays. Run it again if it was interrupted.
TEXT
}

folder= configuration= yes=false keep_images=false
# shellcheck source=deploy/eks/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=6

while [ $# -gt 0 ]; do
  case $1 in
    --folder) folder=$(cd "${2:?--folder needs a path}" && pwd) || fail "no folder $2"; shift ;;
    --keep-images) keep_images=true ;;
    *) take_shared "$1" ;;
  esac
  shift
done
[ -n "$configuration" ] || { usage >&2; exit 2; }
read_configuration "$configuration"

# Whether the cluster is there to be asked.
cluster=true
begin "Programs and account"
need terraform aws kubectl helm
$dry_run || [ -d "$folder" ] || fail "no folder $folder; name it with --folder"
confirm "Delete cluster $name in $region and everything in it?"
run aws eks update-kubeconfig --region "$region" --name "$name" --kubeconfig "$KUBECONFIG" \
  || cluster=false
if $cluster && ! $dry_run && ! kubectl get namespaces --request-timeout=30s >/dev/null; then
  fail "the cluster is there but does not answer; its load balancer and nodes must go first"
fi

# remove_all NAMESPACE KIND.GROUP: deletes all of a custom kind, and waits until they are gone.
# What was never installed is gone.
remove_all() {
  if $dry_run || kubectl get customresourcedefinition "$2" >/dev/null 2>&1; then
    run kubectl delete "$2" --all --namespace "$1" --ignore-not-found --timeout=20m
  fi
}

begin "The load balancer, by its controller"
if $cluster; then
  # the VPC cannot go before it
  remove_all "$NAMESPACE" httproutes.gateway.networking.k8s.io
  remove_all "$NAMESPACE" gateways.gateway.networking.k8s.io
else
  say "    no cluster"
fi

begin "The service, then its nodes, by Karpenter (up to 15 minutes)"
if $cluster; then
  remove_all "$NAMESPACE" scaledobjects.keda.sh
  run kubectl delete deployments --all --namespace "$NAMESPACE" --ignore-not-found --timeout=5m
  remove_all default nodepools.karpenter.sh
  remove_all default nodeclaims.karpenter.sh
  # with it go the instance profiles that Karpenter made
  remove_all default ec2nodeclasses.karpenter.k8s.aws
else
  say "    no cluster"
fi

begin "Controllers"
if $cluster; then
  for release in neuron karpenter karpenter-crd aws-load-balancer-controller; do
    run helm uninstall "$release" --namespace kube-system --ignore-not-found --wait
  done
  run helm uninstall keda --namespace keda --ignore-not-found --wait
else
  say "    no cluster"
fi

begin "Left-overs of an interrupted clean-up"
tag="Name=tag:kubernetes.io/cluster/$name,Values=owned"
if $dry_run; then
  run aws ec2 describe-instances --filters "$tag" Name=tag-key,Values=karpenter.sh/nodepool
  run aws ec2 terminate-instances --instance-ids THOSE
else
  left=$(aws ec2 describe-instances --filters "$tag" Name=tag-key,Values=karpenter.sh/nodepool \
    Name=instance-state-name,Values=pending,running,stopping,stopped \
    --query 'Reservations[].Instances[].InstanceId' --output text)
  if [ -n "$left" ]; then
    say "    nodes without a cluster: $left"
    # shellcheck disable=SC2086 # a list of words
    aws ec2 terminate-instances --instance-ids $left >/dev/null
    # shellcheck disable=SC2086
    aws ec2 wait instance-terminated --instance-ids $left
  fi
fi

# taken by snapshot.sh
if ! $keep_images; then
  if $dry_run; then
    run aws ec2 delete-snapshot --snapshot-id EACH-OF-THE-IMAGE
  else
    for snapshot in $(aws ec2 describe-snapshots --owner-ids self --output text \
      --filters "Name=tag:deployment,Values=$name" Name=tag:purpose,Values=image-snapshot \
      --query 'Snapshots[].SnapshotId'); do
      say "    snapshot $snapshot"
      aws ec2 delete-snapshot --snapshot-id "$snapshot"
    done
  fi
fi

if $queue; then
  # Terraform deletes no bucket that holds something
  if $dry_run; then
    run aws s3 rm s3://RESULTS --recursive --quiet
  elif bucket=$(terraform -chdir="$folder" output -raw results_bucket 2>/dev/null); then
    confirm "Delete all results in s3://$bucket?"
    aws s3 rm "s3://$bucket" --recursive --quiet || say "    (no bucket $bucket)"
  fi
fi

begin "AWS: cluster, network, rights (about 15 minutes)"
if $keep_images; then
  in_folder terraform destroy -input=false -auto-approve -var-file=bentoctl.tfvars
else
  in_folder "$tools/bentoctl" destroy --auto-approve -f deployment_config.yaml
fi
if $dry_run; then
  say "dry run: nothing was changed"
else
  say "Gone. $folder holds the generated files and an empty Terraform state."
fi
