#!/usr/bin/env bash
# Removes what install.sh made, in the order in which nothing is left behind: first what controllers
# made in AWS, by asking them while they run, then them, then the cluster.
# What a loop goes over is assigned first: `set -e` does not see that `for one in $(...)` failed.
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

A bucket with models is yours and stays, also one that models_bucket made, unless it is empty. Run this again if
it was interrupted. Of an existing cluster (`cluster`) only what install.sh made in it goes.
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
if $existing; then
  confirm "Delete $name in cluster $cluster_name in $region?"
else
  confirm "Delete cluster $name in $region and everything in it?"
fi
if ! reach_cluster; then
  # what carries its tags is not all ours: nothing may be swept
  ! $existing || fail "cluster $cluster_name does not answer; run this where kubectl reaches it"
  cluster=false
  say "    the cluster does not answer: what its controllers made is looked for by its tags"
fi
namespaces=stable-diffusion
for service in $services; do
  has "${service%%=*}" "$namespaces" || namespaces+=" ${service%%=*}"
done
if $cluster && ! $dry_run; then # also those of services that the configuration has no more
  namespaces+=" $(kubectl get namespaces -l app.kubernetes.io/part-of=stable-diffusion \
    -o 'jsonpath={.items[*].metadata.name}')"
fi

# remove NAMESPACE KIND.GROUP NAME: deletes one of a custom kind, or --all, and waits until it is gone.
# What was never installed is gone.
remove() {
  if $dry_run || kubectl get customresourcedefinition "$2" >/dev/null 2>&1; then
    run kubectl delete "$2" "$3" --namespace "$1" --ignore-not-found --timeout=20m
  fi
}

# each_namespace KIND.GROUP: the same in every namespace of the deployment.
each_namespace() {
  local namespace
  for namespace in $(printf '%s\n' $namespaces | sort -u); do
    remove "$namespace" "$1" --all
  done
}

# tagged TYPE: the ARNs of what the load balancer controller made of this cluster.
tagged() {
  aws resourcegroupstaggingapi get-resources --tag-filters "Key=elbv2.k8s.aws/cluster,Values=$name" \
    --resource-type-filters "elasticloadbalancing:$1" --output text \
    --query 'ResourceTagMappingList[].ResourceARN'
}

# A cluster that lives out of reach: its Karpenter would start a node for each that is swept. It runs on
# these nodes only.
stop_controllers() {
  aws eks describe-nodegroup --cluster-name "$name" --nodegroup-name system >/dev/null 2>&1 || return 0
  say "    the controllers' nodes, before Karpenter starts others"
  # it may be on its way already
  aws eks delete-nodegroup --cluster-name "$name" --nodegroup-name system >/dev/null || true
  aws eks wait nodegroup-deleted --cluster-name "$name" --nodegroup-name system
}

# Network interfaces that the CNI made for pods, and that nobody deleted when their node ended.
sweep_interfaces() {
  local vpc interface interfaces
  vpc=$(terraform -chdir="$folder" output -raw vpc_id 2>/dev/null) || return 0
  interfaces=$(aws ec2 describe-network-interfaces --output text \
    --filters "Name=vpc-id,Values=$vpc" Name=status,Values=available \
    Name=tag-key,Values=node.k8s.amazonaws.com/instance_id \
    --query 'NetworkInterfaces[].NetworkInterfaceId')
  for interface in $interfaces; do
    say "    network interface $interface"
    aws ec2 delete-network-interface --network-interface-id "$interface"
  done
}

destroy() {
  if $keep_images; then
    in_folder terraform destroy -input=false -auto-approve -var-file=bentoctl.tfvars
  else
    in_folder "$tools/bentoctl" destroy --auto-approve -f deployment_config.yaml
  fi
}

sweep_nodes() {
  local left template templates profile role=$name-$region-karpenter-node
  left=$(aws ec2 describe-instances --filters \
    "Name=tag:kubernetes.io/cluster/$name,Values=owned" Name=tag-key,Values=karpenter.sh/nodepool \
    Name=instance-state-name,Values=pending,running,stopping,stopped \
    --query 'Reservations[].Instances[].InstanceId' --output text)
  if [ -n "$left" ]; then
    say "    nodes: $left"
    # shellcheck disable=SC2086 # a list of words
    aws ec2 terminate-instances --instance-ids $left >/dev/null
    # shellcheck disable=SC2086
    aws ec2 wait instance-terminated --instance-ids $left
  fi
  templates=$(aws ec2 describe-launch-templates --output text \
    --filters "Name=tag:karpenter.k8s.aws/cluster,Values=$name" \
    --query 'LaunchTemplates[].LaunchTemplateId')
  for template in $templates; do
    say "    launch template $template"
    aws ec2 delete-launch-template --launch-template-id "$template" >/dev/null
  done
  for profile in $(aws iam list-instance-profiles-for-role --role-name "$role" --output text \
    --query 'InstanceProfiles[].InstanceProfileName' 2>/dev/null || true); do
    say "    instance profile $profile"
    aws iam remove-role-from-instance-profile --instance-profile-name "$profile" --role-name "$role"
    aws iam delete-instance-profile --instance-profile-name "$profile"
  done
}

sweep_balancers() {
  local arn arns
  arns=$(tagged loadbalancer)
  for arn in $arns; do
    say "    load balancer $arn"
    aws elbv2 delete-load-balancer --load-balancer-arn "$arn"
    aws elbv2 wait load-balancers-deleted --load-balancer-arns "$arn"
  done
  arns=$(tagged targetgroup)
  for arn in $arns; do
    say "    target group $arn"
    aws elbv2 delete-target-group --target-group-arn "$arn"
  done
}

# The nodes' group lets these in by rules that name them, which must go first.
sweep_groups() {
  local group groups other others rule rules
  groups=$(aws ec2 describe-security-groups --output text \
    --filters "Name=tag:elbv2.k8s.aws/cluster,Values=$name" --query 'SecurityGroups[].GroupId')
  for group in $groups; do
    others=$(aws ec2 describe-security-groups --output text \
      --filters "Name=ip-permission.group-id,Values=$group" --query 'SecurityGroups[].GroupId')
    for other in $others; do
      rules=$(aws ec2 describe-security-group-rules --output text \
        --filters "Name=group-id,Values=$other" --query \
        "SecurityGroupRules[?ReferencedGroupInfo.GroupId=='$group'].SecurityGroupRuleId")
      for rule in $rules; do
        aws ec2 revoke-security-group-ingress --group-id "$other" \
          --security-group-rule-ids "$rule" >/dev/null
      done
    done
    say "    security group $group"
    delete_group "$group"
  done
}

# A balancer's network interfaces stay for some minutes after it, and hold its group.
delete_group() {
  local try
  for try in $(seq 30); do
    if aws ec2 delete-security-group --group-id "$1" >/dev/null; then return; fi
    say "    $1 is still in use ($try)"
    sleep 10
  done
  fail "security group $1 stays in use; look for its network interfaces, then run this again"
}

begin "The load balancer, by its controller"
if $cluster; then
  # the VPC cannot go before it
  each_namespace httproutes.gateway.networking.k8s.io
  each_namespace gateways.gateway.networking.k8s.io
else
  say "    no cluster"
fi

begin "The service, then its nodes, by Karpenter (up to 15 minutes)"
if $cluster; then
  each_namespace scaledobjects.keda.sh
  each_namespace rayservices.ray.io # KubeRay deletes its clusters with it
  for namespace in $(printf '%s\n' $namespaces | sort -u); do
    run kubectl delete deployments --all --namespace "$namespace" --ignore-not-found --timeout=5m
  done
fi
if $existing; then # other pools, and what else is in no namespace, are not ours
  for kind in nodepools.karpenter.sh ec2nodeclasses.karpenter.k8s.aws; do
    for pool in $pools; do
      remove default "$kind" "$pool"
    done
  done
  for namespace in $(printf '%s\n' $namespaces | sort -u); do
    run kubectl delete namespace "$namespace" --ignore-not-found --timeout=10m
  done
  # one for each folder that was ever mounted
  run kubectl delete persistentvolumes -l app.kubernetes.io/part-of=stable-diffusion \
    --ignore-not-found --timeout=5m
elif $cluster; then
  remove default nodepools.karpenter.sh --all
  remove default nodeclaims.karpenter.sh --all
  # with it go the instance profiles that Karpenter made
  remove default ec2nodeclasses.karpenter.k8s.aws --all
else
  say "    no cluster"
fi

begin "Controllers"
if $cluster; then
  releases=$(controllers)
  for release in $releases; do
    run helm uninstall "${release#*/}" --namespace "${release%/*}" --ignore-not-found --wait
  done
else
  say "    no cluster"
fi

begin "What controllers left, by its tags"
# Nothing of it is Terraform's, and each would hold the VPC, or the nodes' role.
if $existing; then
  say "    nothing: what carries the cluster's tags is its owner's, too"
elif $dry_run; then
  run aws ec2 terminate-instances --instance-ids EACH-OF-KARPENTER
  run aws iam delete-instance-profile --instance-profile-name EACH-OF-KARPENTER
  run aws elbv2 delete-load-balancer --load-balancer-arn EACH-OF-THE-CONTROLLER
  run aws elbv2 delete-target-group --target-group-arn EACH-OF-THE-CONTROLLER
  run aws ec2 delete-security-group --group-id EACH-OF-THE-CONTROLLER
else
  $cluster || stop_controllers
  sweep_nodes
  sweep_balancers
  sweep_groups
fi

# taken by snapshot.sh
if ! $keep_images; then
  if $dry_run; then
    run aws ec2 delete-snapshot --snapshot-id EACH-OF-THE-IMAGE
  else
    snapshots=$(aws ec2 describe-snapshots --owner-ids self --output text \
      --filters "Name=tag:deployment,Values=$name" Name=tag:purpose,Values=image-snapshot \
      --query 'Snapshots[].SnapshotId')
    for snapshot in $snapshots; do
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

stays=
if ! $dry_run; then
  leave_models && stays="s3://$left stays, with the models in it and their old versions. "
elif [ -n "$models_bucket" ]; then
  run terraform -chdir="$folder" state rm EACH-OF-THE-BUCKET-OF-MODELS
fi

begin "AWS: cluster, network, rights (about 15 minutes)"
if ! destroy; then
  # in a VPC of somebody else they may be another cluster's
  [ -z "$existing_vpc" ] || fail "not everything is gone; look above, then run this again"
  say "    once more, without the network interfaces that the CNI left behind"
  sweep_interfaces
  destroy
fi
if $dry_run; then
  say "dry run: nothing was changed"
else
  # EKS writes its last logs after Terraform has deleted their group, and so makes it again
  $existing || aws logs delete-log-group --log-group-name "/aws/eks/$name/cluster" 2>/dev/null || true
  say "Gone. $stays$folder holds the generated files and an empty Terraform state."
fi
