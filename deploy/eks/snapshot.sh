#!/usr/bin/env bash
# A snapshot of a node's data volume with the image already pulled, so that new nodes start without
# the download. Whatever it makes on the way is removed at its end, however it ends.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/eks/snapshot.sh [options] CONFIGURATION

  CONFIGURATION          the one given to install.sh
  --image IMAGE          what to pull; may be repeated (default: the deployment's own image)
  --subnet SUBNET        where the instance starts; it must reach AWS and the registries
                         (default: a private one of the cluster)
  --security-group GROUP (default: the cluster's)
  --role ROLE            with rights to AmazonSSMManagedInstanceCore and to pull the images
                         (default: that of the cluster's nodes)
  --instance-type TYPE   x86_64 (default: m6i.large); no accelerator is needed
  --folder FOLDER        where install.sh put its files (default: ./NAME-OF-THE-DEPLOYMENT)
  --dry-run              show every command, run none
  --yes                  ask nothing
  --help                 this text

Prints image_snapshot_id for the configuration. A cluster that the operator did not make: write a
configuration with its region and versions, and give --image, --subnet, --security-group and --role.
TEXT
}

folder= configuration= yes=false
images=() subnet= group= role= instance_type=m6i.large
# shellcheck source=deploy/eks/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=6

while [ $# -gt 0 ]; do
  case $1 in
    --image) images+=("${2:?--image needs a name}"); shift ;;
    --subnet) subnet=${2:?--subnet needs an id}; shift ;;
    --security-group) group=${2:?--security-group needs an id}; shift ;;
    --role) role=${2:?--role needs a name}; shift ;;
    --instance-type) instance_type=${2:?--instance-type needs a type}; shift ;;
    --folder) folder=$(cd "${2:?--folder needs a path}" && pwd) || fail "no folder $2"; shift ;;
    *) take_shared "$1" ;;
  esac
  shift
done
[ -n "$configuration" ] || { usage >&2; exit 2; }
read_configuration "$configuration"

readonly CONTAINERD=/run/containerd/containerd.sock
instance= profile= snapshot= finished=false
role=${role:-$name-$region-karpenter-node}
tags="{Key=deployment,Value=$name},{Key=purpose,Value=image-snapshot}"

exec 3>&1 # ask's own output is its answer

# ask PLACEHOLDER COMMAND...: what AWS answers; in a dry run shows the command, and the placeholder.
ask() {
  local placeholder=$1
  shift
  if $dry_run; then
    run "$@" >&3
    printf '%s' "$placeholder"
  else
    "$@" --output text
  fi
}

# As `run`, without what AWS answers.
quietly() {
  if $dry_run; then run "$@"; else "$@" >/dev/null; fi
}

# As `quietly`, and goes on after a failure.
remove() {
  quietly "$@" || say "    FAILED, please do it by hand: $*"
}

# shellcheck disable=SC2329 # called by the trap
clean_up() {
  trap - EXIT INT TERM
  if [ -n "$instance" ]; then
    say "    removing instance $instance"
    remove aws ec2 terminate-instances --instance-ids "$instance"
    remove aws ec2 wait instance-terminated --instance-ids "$instance"
  fi
  if [ -n "$profile" ]; then
    remove aws iam remove-role-from-instance-profile --instance-profile-name "$profile" \
      --role-name "$role"
    remove aws iam delete-instance-profile --instance-profile-name "$profile"
  fi
  if [ -n "$snapshot" ] && ! $finished; then
    say "    removing snapshot $snapshot, which was not finished"
    remove aws ec2 delete-snapshot --snapshot-id "$snapshot"
  fi
}

# eventually SECONDS-BETWEEN TIMES COMMAND...: tries until it succeeds.
eventually() {
  local between=$1 times=$2 i
  shift 2
  for ((i = 1; i < times; i++)); do
    if "$@"; then return; fi
    sleep "$between"
  done
  "$@"
}

begin "Programs and account"
need aws
if [ ${#images[@]} -eq 0 ]; then
  if [ -n "$image_uri" ]; then
    images=("$image_uri")
  elif $dry_run; then
    images=(IMAGE)
  else
    images=("$(terraform -chdir="$folder" output -raw image_uri)") \
      || fail "which image? run install.sh first, or give --image"
  fi
fi
for image in "${images[@]}"; do
  # they become part of a command on the instance
  [[ $image =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || fail "$image is not an image's name"
done
subnet=${subnet:-$existing_subnet}
[ -n "$subnet" ] || subnet=$(ask SUBNET aws ec2 describe-subnets --query 'Subnets[0].SubnetId' \
  --filters "Name=tag:karpenter.sh/discovery,Values=$name")
[ -n "$group" ] || group=$(ask GROUP aws ec2 describe-security-groups \
  --query 'SecurityGroups[0].GroupId' --filters "Name=tag:karpenter.sh/discovery,Values=$name")
if [ "$subnet" = None ] || [ "$group" = None ]; then
  fail "no cluster $name in $region; run install.sh first, or give --subnet and --security-group"
fi
confirm "Start an instance in $region for some minutes, and keep a snapshot of up to $volume_gib GiB?"

trap clean_up EXIT
trap 'exit 130' INT TERM
begin "A Bottlerocket instance"
ami=$(ask AMI aws ssm get-parameter --query Parameter.Value --name \
  "/aws/service/bottlerocket/aws-k8s-$kubernetes_version/x86_64/$bottlerocket_version/image_id")
profile=$name-snapshot-$$
quietly aws iam create-instance-profile --instance-profile-name "$profile" \
  --tags "Key=deployment,Value=$name"
run aws iam add-role-to-instance-profile --instance-profile-name "$profile" --role-name "$role"
launch() {
  local disk='"VolumeType":"gp3","Encrypted":true,"DeleteOnTermination":true'
  instance=$(ask INSTANCE aws ec2 run-instances --query 'Instances[0].InstanceId' \
    --image-id "$ami" --instance-type "$instance_type" --subnet-id "$subnet" \
    --security-group-ids "$group" --iam-instance-profile "Name=$profile" \
    --metadata-options HttpTokens=required,HttpPutResponseHopLimit=1 \
    --user-data $'[settings.host-containers.admin]\nenabled = true\n' \
    --block-device-mappings \
    "[{\"DeviceName\":\"/dev/xvdb\",\"Ebs\":{\"VolumeSize\":$volume_gib,\"Iops\":4000,\"Throughput\":1000,$disk}}]" \
    --tag-specifications \
    "ResourceType=instance,Tags=[{Key=Name,Value=$name-snapshot},$tags]" \
    "ResourceType=volume,Tags=[{Key=Name,Value=$name-snapshot},$tags]")
}
eventually 5 12 launch # IAM takes a while to know a new profile everywhere
run aws ec2 wait instance-running --instance-ids "$instance"
online() {
  [ "$(ask Online aws ssm describe-instance-information \
    --filters "Key=InstanceIds,Values=$instance" \
    --query 'InstanceInformationList[0].PingStatus')" = Online ]
}
eventually 5 120 online || fail "$instance does not reach Systems Manager; see --subnet and --role"

# on_instance COMMAND...: runs them there, in a shell of Bottlerocket's control container, and waits.
on_instance() {
  local lines command state unknown=0
  lines=$(printf ',"%s"' "$@")
  command=$(ask COMMAND aws ssm send-command --document-name AWS-RunShellScript \
    --instance-ids "$instance" --query Command.CommandId \
    --parameters "{\"executionTimeout\":[\"3600\"],\"commands\":[${lines:1}]}")
  while true; do
    state=$(ask Success aws ssm get-command-invocation --query Status \
      --command-id "$command" --instance-id "$instance") || state=unknown
    case $state in
      Success) return ;;
      unknown) # it takes a moment until the command is known
        unknown=$((unknown + 1))
        [ "$unknown" -lt 12 ] || fail "AWS does not tell what became of $command"
        ;;
      Pending | InProgress | Delayed) ;;
      *)
        aws ssm get-command-invocation --command-id "$command" --instance-id "$instance" \
          --query '[StandardOutputContent, StandardErrorContent]' --output text >&2
        fail "on the instance: $state"
        ;;
    esac
    sleep 5
  done
}

begin "Pulling ${images[*]}"
host="apiclient exec admin sheltie"
on_instance "for i in \$(seq 60); do apiclient exec admin true && exit 0; sleep 5; done; exit 1"
on_instance "$host systemctl stop kubelet"
for image in "${images[@]}"; do
  # by the instance's own rights: no registry password is in any command. The label makes it an image
  # of Kubernetes'; the last line fails unless it is known by the name that pods will ask for.
  on_instance "set -e" \
    "$host host-ctr --containerd-socket $CONTAINERD --namespace k8s.io pull-image --label io.cri-containerd.image=managed --registry-config /etc/host-containers/host-ctr.toml --source $image" \
    "$host ctr --address $CONTAINERD --namespace k8s.io images ls -q | grep -qxF $image"
done

begin "Stopping it, so that everything is on the volume"
quietly aws ec2 stop-instances --instance-ids "$instance"
run aws ec2 wait instance-stopped --instance-ids "$instance"

begin "The snapshot (some minutes)"
volume=$(ask VOLUME aws ec2 describe-instances --instance-ids "$instance" --query \
  "Reservations[0].Instances[0].BlockDeviceMappings[?DeviceName=='/dev/xvdb'].Ebs.VolumeId")
snapshot=$(ask SNAPSHOT aws ec2 create-snapshot --volume-id "$volume" --query SnapshotId \
  --description "$SNAPSHOT_WITH ${images[0]}" \
  --tag-specifications "ResourceType=snapshot,Tags=[{Key=Name,Value=$name-image},$tags]")
complete() { run aws ec2 wait snapshot-completed --snapshot-ids "$snapshot"; }
eventually 1 6 complete # it waits ten minutes each time
finished=true

begin "Removing the instance"
clean_up
if $dry_run; then
  say "dry run: nothing was changed"
  exit
fi
cat <<TEXT

image_snapshot_id: $snapshot

Put this line into the spec of $configuration (volume_gib at least $volume_gib) and run install.sh
again: new nodes start from it. Take a new one for a new image. Delete it, once no configuration names it:
  aws ec2 delete-snapshot --region $region --snapshot-id $snapshot
TEXT
