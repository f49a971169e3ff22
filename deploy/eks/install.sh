#!/usr/bin/env bash
# From a configuration to a running service. Run it again at any time: what is there stays or is
# brought up to date.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/eks/install.sh [options] CONFIGURATION

  CONFIGURATION     like deploy/eks/gpu.yaml
  --bento TAG       the Bento to deploy (default: the newest stable_diffusion_fp16, or
                    stable_diffusion_neuron for Inferentia2, with _ray at its end for host: ray)
  --folder FOLDER   where files are generated (default: ./NAME-OF-THE-DEPLOYMENT)
  --snapshot        nodes start from a snapshot with the image on it: takes one, unless one of this
                    image is there (some minutes; deploy/eks/snapshot.sh)
  --dry-run         show every command, run none
  --yes             ask nothing
  --help            this text

Needs: terraform, aws, kubectl, helm, and docker, podman or buildah; `make deploy-tools`. For a private
Kubernetes API (no api_allowed_cidrs) also AWS' session-manager-plugin, unless you are inside the VPC.
TEXT
}

bento= folder= configuration= yes=false snapshot=false
# shellcheck source=deploy/eks/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=9

while [ $# -gt 0 ]; do
  case $1 in
    --bento) bento=${2:?--bento needs a tag}; shift ;;
    --folder) folder=$(mkdir -p "${2:?--folder needs a path}" && cd "$2" && pwd); shift ;;
    --snapshot) snapshot=true ;;
    *) take_shared "$1" ;;
  esac
  shift
done
[ -n "$configuration" ] || { usage >&2; exit 2; }
read_configuration "$configuration"
if $snapshot; then
  # its nodes' network and role are its owner's to name
  ! $existing || fail "--snapshot: for a cluster that is there run snapshot.sh, with --subnet and others"
  [ -z "$image_snapshot_id" ] || fail "--snapshot: the configuration names image_snapshot_id; leave one out"
  steps=$((steps + 1))
fi
if [ -z "$bento" ]; then
  bento=stable_diffusion_fp16
  if has neuron "$accelerators"; then bento=stable_diffusion_neuron; fi
  if has ray "$hosts"; then bento=${bento}_ray; fi
  bento=$bento:latest
fi

queue_mode=$queue # below, $queue is Karpenter's

# chart CHART VERSION NAMESPACE NAME [--set ...]: installs or upgrades it, and waits.
chart() {
  local source=$1 version=$2 namespace=$3 release=$4
  shift 4
  run helm upgrade --install "$release" "$source" --version "$version" \
    --namespace "$namespace" --create-namespace --labels "deployment=$name" --wait --timeout 10m "$@"
}

# builder: the program that builds images, as bentoctl picks it.
builder() { "$tools/python" -c 'from sd_bentoctl.containers import builder; print(builder())'; }

# check_quota FAMILY CODES LEAST MOST: ends where AWS lets the account have fewer virtual CPUs.
check_quota() {
  local family=$1 codes=$2 least=$3 most=$4 code value largest=0
  for code in ${codes//,/ }; do
    value=$(aws service-quotas get-service-quota --service-code ec2 --quota-code "$code" \
      --query Quota.Value --output text) || value=0
    value=${value%.*}
    [[ $value =~ ^[0-9]+$ ]] || value=0
    say "    $family, quota $code: $value virtual CPUs"
    if [ "$value" -gt "$largest" ]; then largest=$value; fi
  done
  if [ "$largest" -lt "$most" ]; then
    for code in ${codes//,/ }; do
      say "    to have more: aws service-quotas request-service-quota-increase --region $region" \
        "--service-code ec2 --quota-code $code --desired-value $most"
    done
  fi
  if [ "$largest" -lt "$least" ]; then
    fail "the account may start $largest virtual CPUs of $family, $least are needed at least"
  fi
}

# check_gateway_role: ends where API Gateway has no role for logs in this region, or another's would go.
check_gateway_role() {
  local role own=false
  role=$(aws apigateway get-account --query cloudwatchRoleArn --output text)
  case $role in *":role/$name-$region-gateway-logs" | *":role/$name-gateway-logs") own=true ;; esac
  if $api_gateway_account; then
    [ "$role" = None ] || $own \
      || fail "API Gateway has the role $role already; leave api_gateway_account out"
  elif [ "$role" = None ] || $own; then
    fail "access_log needs a role for logs of API Gateway in $region; set api_gateway_account: true"
  fi
}

begin "Programs and account"
need terraform aws kubectl helm
if [ -z "$image_uri" ] && ! $dry_run; then
  builder >/dev/null || fail "please install docker, podman or buildah; or name an image_uri"
fi
if [ -n "$ending" ]; then fail "kubernetes_version: $ending"; fi
if $access_log && ! $dry_run; then check_gateway_role; fi
# check_cluster: ends where the existing cluster lacks what the deployment needs of it.
check_cluster() {
  local told field value addon
  told=$(aws eks describe-cluster --name "$cluster_name" --output text --query \
    "cluster.[['status',status],['vpc',resourcesVpcConfig.vpcId],['mode',accessConfig.authenticationMode]]") \
    || fail "there is no cluster $cluster_name in $region"
  while read -r field value; do
    case $field=$value in
      status=ACTIVE | vpc=$existing_vpc | mode=API | mode=API_AND_CONFIG_MAP) ;;
      status=*) fail "cluster $cluster_name is $value; wait until it is ACTIVE" ;;
      vpc=*) fail "vpc_id: cluster $cluster_name is in $value" ;;
      mode=*) fail "cluster $cluster_name has no access entries: set its authentication mode to API_AND_CONFIG_MAP" ;;
    esac
  done <<<"$told"
  for addon in $addons; do
    value=$(aws eks describe-addon --cluster-name "$cluster_name" --addon-name "$addon" \
      --query addon.configurationValues --output text) \
      || fail "cluster $cluster_name lacks the add-on $addon: aws eks create-addon" \
        "--cluster-name $cluster_name --addon-name $addon"
    # without its pod there a node keeps its startup taint, and the service's pods stay Pending
    if [ "$addon" = aws-mountpoint-s3-csi-driver ] \
      && ! [[ $value =~ tolerateAllTaints\"?:\ *true|[^a-z]tolerations ]]; then
      fail "the add-on $addon of cluster $cluster_name does not come to nodes with accelerators, which" \
        "are tainted: aws eks update-addon --cluster-name $cluster_name --addon-name $addon" \
        "--configuration-values '{\"node\":{\"tolerateAllTaints\":true}}'"
    fi
  done
}

# check_controllers: ends where the existing cluster has other controllers than the configuration says.
check_controllers() {
  local release kind there mine
  mine=$(installed)
  while read -r release kind <&3; do # the programs inside may read from 0
    there=false
    if [ "${release#*/}" = kuberay-operator ] && ! has ray "$hosts"; then continue; fi
    if kubectl get customresourcedefinition "$kind" >/dev/null 2>&1; then there=true; fi
    if has "${release#*/}" "$existing_controllers"; then
      $there || fail "existing_controllers: cluster $cluster_name has no ${release#*/} ($kind is missing)"
    elif $there && ! has "${release#*/}" "$mine"; then
      fail "cluster $cluster_name has a ${release#*/} that is not of this deployment:" \
        "name it in existing_controllers"
    fi
  done 3<<'KINDS'
kube-system/karpenter nodepools.karpenter.sh
kube-system/aws-load-balancer-controller targetgroupbindings.elbv2.k8s.aws
kube-system/aws-load-balancer-controller loadbalancerconfigurations.gateway.k8s.aws
keda/keda scaledobjects.keda.sh
kuberay-operator/kuberay-operator rayservices.ray.io
KINDS
}

if $existing; then
  confirm "Deploy $name into cluster $cluster_name in $region? It costs money until cleanup.sh has run."
  if $dry_run; then
    run aws eks describe-cluster --name "$cluster_name"
  else
    check_cluster
    reach_cluster || fail "cluster $cluster_name does not answer; run this where kubectl reaches it"
    check_controllers
  fi
else
  confirm "Create or update cluster $name in $region? It costs money until cleanup.sh has run."
fi

begin "Quotas and capacity"
if $dry_run; then
  run aws service-quotas get-service-quota --service-code ec2 --quota-code EACH
else
  while read -r -d ';' family codes least most <&3; do # the programs inside may read from 0
    check_quota "$family" "$codes" "$least" "$most"
  done 3<<<"$quotas;"
  offered=$(aws ec2 describe-instance-type-offerings --location-type availability-zone \
    --filters "Name=instance-type,Values=${instance_types// /,}" --output text \
    --query 'InstanceTypeOfferings[].InstanceType')
  for type in $instance_types; do
    has "$type" "$(printf '%s ' $offered)" || say "    $type is not offered in $region"
  done
  [ -n "$offered" ] || fail "none of $instance_types is offered in $region"
fi
if $spot; then
  # an account has it once it has used spot instances; Karpenter may not make it, and without it
  # would start on demand at about three times the price
  run aws iam get-role --role-name AWSServiceRoleForEC2Spot >/dev/null 2>&1 \
    || run aws iam create-service-linked-role --aws-service-name spot.amazonaws.com >/dev/null
fi

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
if ! $dry_run && grep -rq 'newName: stable-diffusion$' "$folder/kubernetes/deployment"; then
  fail "the manifests name no image; see what bentoctl build said"
fi
# push_page IMAGE: the web page's image, unless it is there; its tag is a digest of its contents.
push_page() {
  local repository=${1#*/} tool
  repository=${repository%:*}
  if aws ecr describe-images --repository-name "$repository" --image-ids "imageTag=${1##*:}" \
    >/dev/null 2>&1; then
    return
  fi
  tool=$(builder)
  aws ecr get-login-password | "$tool" login --username AWS --password-stdin "${1%%/*}"
  # the nodes' platform, whatever this machine is
  "$tool" build --platform linux/amd64 --file "$ROOT/ui/Dockerfile" --tag "$1" "$ROOT"
  "$tool" push "$1"
}

if has ray "$hosts"; then
  if $dry_run; then
    say "    the web page's image, of ui/Dockerfile, into the same repository"
  else
    pages=$(PYTHONPATH=$ROOT/deploy/tools:$ROOT/deploy/operators/aws-eks \
      "$tools/python" -m sd_aws_eks.page "$folder")
    for page in $pages; do push_page "$page"; done
  fi
fi

if $queue_mode; then
  say "    the front door's package"
  # it names the service's samplers: so it is made in the service's environment
  [ -x "$ROOT/.venv/bin/python" ] || $dry_run || fail "run \`make setup\` first"
  run env "PYTHONPATH=$ROOT" "$ROOT/.venv/bin/python" -m hosts.queue.front.package "$folder/front.zip"
fi

# adopt ADDRESS ID: hands what is there to Terraform, which could not create it.
adopt() {
  if $dry_run || ! terraform -chdir="$folder" state list "$1" 2>/dev/null | grep -q .; then
    in_folder terraform import -input=false -var-file=bentoctl.tfvars "$1" "$2"
  fi
}

# adopt_log_group: the one that EKS made again after a former cluster of this name was deleted.
adopt_log_group() {
  local group=/aws/eks/$name/cluster
  $dry_run || [ "$(aws logs describe-log-groups --log-group-name-prefix "$group" --output text \
    --query "logGroups[?logGroupName=='$group'].logGroupName")" = "$group" ] || return 0
  adopt 'aws_cloudwatch_log_group.cluster[0]' "$group"
}

# adopt_models: the bucket that cleanup.sh left with its models, and nobody else's.
adopt_models() {
  local owner
  [ -n "$models_bucket" ] || return 0
  if ! $dry_run; then
    aws s3api head-bucket --bucket "$models_bucket" >/dev/null 2>&1 || return 0
    owner=$(aws s3api get-bucket-tagging --bucket "$models_bucket" --output text \
      --query "TagSet[?Key=='deployment'].Value") || owner=
    [ "$owner" = "$name" ] || fail "models_bucket: $models_bucket is there, and not of this deployment;" \
      "leave models_bucket out, model may name it all the same"
  fi
  adopt "aws_s3_bucket.models[\"$models_bucket\"]" "$models_bucket"
}

# check_models: ends where a service would start without its model.
check_models() {
  local place found missing=false
  for place in $needed_models; do
    found=$(aws s3api list-objects-v2 --bucket "$models_bucket" --prefix "${place#s3://*/}/" --max-keys 1 \
      --no-paginate --query 'Contents[].Key' --output text)
    if [ -z "$found" ] || [ "$found" = None ]; then
      say "    $place is empty: .venv/bin/python -m models push ${place##*/} ${place%/*}/"
      missing=true
    fi
  done
  ! $missing || fail "the bucket is there; put the models into it, then run this again"
}

begin "AWS: network, cluster, rights (about 15 minutes the first time)"
in_folder terraform init -input=false
$existing || adopt_log_group
if ! $dry_run && leave_models "$models_bucket"; then
  say "    s3://$left stays, with the models in it: models_bucket does not name it any more"
fi
adopt_models
in_folder terraform plan -input=false -out=plan -var-file=bentoctl.tfvars
confirm "Apply this plan?"
in_folder terraform apply -input=false plan
$dry_run || check_models

# snapshot_of IMAGE: a snapshot that is there, or a new one.
snapshot_of() {
  local found
  found=$(aws ec2 describe-snapshots --owner-ids self --output text --query 'Snapshots[0].SnapshotId' \
    --filters "Name=tag:deployment,Values=$name" Name=tag:purpose,Values=image-snapshot \
    Name=status,Values=completed "Name=description,Values=$SNAPSHOT_WITH $1") || return 1
  if [ -n "$found" ] && [ "$found" != None ]; then
    printf '%s' "$found"
  else
    "$HERE/snapshot.sh" --yes --folder "$folder" "$configuration" | tee /dev/stderr \
      | sed -n 's/^image_snapshot_id: //p'
  fi
}

if $snapshot; then
  begin "Snapshot with the image (some minutes)"
  if $dry_run; then
    run "$HERE/snapshot.sh" --yes --folder "$folder" "$configuration"
  else
    image=${image_uri:-$(terraform -chdir="$folder" output -raw image_uri)}
    id=$(snapshot_of "$image")
    [ -n "$id" ] || fail "--snapshot: there is no snapshot; see above"
    say "    $id. Without --snapshot, keep it by image_snapshot_id: $id in $configuration"
    "$tools/python" - "$folder/deployment_config.yaml" "$id" <<'PYTHON'
import sys, yaml
with open(sys.argv[1]) as file:
    document = yaml.safe_load(file)
document["spec"]["image_snapshot_id"] = sys.argv[2]
with open(sys.argv[1], "w") as file:
    yaml.safe_dump(document, file, sort_keys=False)
PYTHON
    in_folder "$tools/bentoctl" generate -f deployment_config.yaml
  fi
fi

begin "Access to the cluster"
reach_cluster || fail "the Kubernetes API does not answer; see api_allowed_cidrs"

begin "Controllers"
if $dry_run; then
  queue="$name-interruptions" vpc=VPC
else
  if ! has karpenter "$existing_controllers"; then
    queue=$(terraform -chdir="$folder" output -raw interruption_queue)
  fi
  vpc=$(terraform -chdir="$folder" output -raw vpc_id)
fi
# missing NAME: whether it is to be installed.
missing() { ! has "$1" "$existing_controllers"; }
if missing aws-load-balancer-controller; then
  run kubectl apply --server-side -f "$GATEWAY_API"
  run kubectl apply --server-side -f "$GATEWAY_AWS"
fi
if missing karpenter; then
  chart oci://public.ecr.aws/karpenter/karpenter-crd "$KARPENTER_VERSION" kube-system karpenter-crd
  chart oci://public.ecr.aws/karpenter/karpenter "$KARPENTER_VERSION" kube-system karpenter \
    --set "settings.clusterName=$cluster_name" --set "settings.interruptionQueue=$queue"
fi
if missing aws-load-balancer-controller; then
  chart aws-load-balancer-controller "$LOAD_BALANCER_VERSION" kube-system \
    aws-load-balancer-controller --repo https://aws.github.io/eks-charts \
    --set "clusterName=$cluster_name" --set "region=$region" --set "vpcId=$vpc" \
    --set serviceAccount.name=aws-load-balancer-controller
fi
if missing keda; then
  chart keda "$KEDA_VERSION" keda keda --repo https://kedacore.github.io/charts
  if $queue_mode && ! $dry_run && ! has AWS_CONTAINER_CREDENTIALS_FULL_URI "$(kubectl get pods \
    --namespace keda --selector app=keda-operator -o 'jsonpath={.items[*].spec.containers[*].env[*].name}')"; then
    # its pods are older than its right to read the queue, which a pod gets when it is made
    run kubectl rollout restart deployment/keda-operator --namespace keda
  fi
fi
if has ray "$hosts" && missing kuberay-operator; then
  chart kuberay-operator "$KUBERAY_VERSION" kuberay-operator kuberay-operator \
    --repo https://ray-project.github.io/kuberay-helm
fi
if has neuron "$accelerators" && missing neuron; then
  # Bottlerocket's NVIDIA variant brings its device plugin; for Neuron it is this chart
  chart oci://public.ecr.aws/neuron/neuron-helm-chart "$NEURON_CHART_VERSION" kube-system neuron \
    --set npd.enabled=false
fi

begin "Service"
for service in $services; do
  namespace=${service%%=*}
  if [ -n "$api_keys_parameter" ]; then
    if $dry_run; then
      say "    (SSM parameter $api_keys_parameter -> Secret api-keys in $namespace)"
    else
      kubectl create namespace "$namespace" --dry-run=client -o yaml \
        | kubectl apply --server-side -f -
      # An empty Secret would open the service to everybody. printf is the shell's own: the keys are on
      # no command line and in no file.
      keys=$(aws ssm get-parameter --name "$api_keys_parameter" --with-decryption \
        --query Parameter.Value --output text) || keys=
      [ -n "$keys" ] || fail "no keys can be read from the SSM parameter $api_keys_parameter"
      printf '%s' "$keys" | kubectl create secret generic api-keys --namespace "$namespace" \
          --from-file=SD_API_KEYS=/dev/stdin --dry-run=client -o yaml \
        | kubectl apply --server-side -f -
    fi
  fi
done
if $queue_mode; then
  if $dry_run; then
    say "    terraform output -json workers > workers.env of each runtime in $folder/kubernetes"
  else
    terraform -chdir="$folder" output -json workers \
      | PYTHONPATH=$ROOT/deploy/tools:$ROOT/deploy/operators/aws-eks \
        "$tools/python" -m sd_aws_eks.workers "$folder/kubernetes/deployment"
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
  if [ -n "$cloudfront_hostname" ]; then
    say "Name:  point $cloudfront_hostname at $(terraform -chdir="$folder" output -raw cloudfront_domain), in DNS"
  fi
  say "Keys:  terraform -chdir=$folder output -json api_keys"
  say "What tasks look like: docs/queue.md. Remove it all: deploy/eks/cleanup.sh $configuration"
  exit
fi
begin "Waiting for a node, the image and the model (up to 30 minutes)"
for service in $services; do
  namespace=${service%%=*}
  if [ "${service#*=}" = ray ]; then
    run kubectl wait rayservice/stable-diffusion --namespace "$namespace" --for=condition=Ready \
      --timeout=30m
  else
    run kubectl rollout status deployment/stable-diffusion --namespace "$namespace" --timeout=30m
  fi
done
# of several services it is in a namespace of its own; of one, in the service's: the same name
run kubectl wait gateway/stable-diffusion --namespace stable-diffusion --for=condition=Programmed \
  --timeout=10m
if $dry_run; then
  say "dry run: nothing was changed"
  exit
fi
address=$(kubectl get gateway stable-diffusion --namespace stable-diffusion \
  -o 'jsonpath={.status.addresses[0].value}')
cat <<TEXT

Ready: $scheme://$address/

curl -X POST $scheme://$address/txt2img -H 'Content-Type: application/json' -d '{"prompt":"View of a cyberpunk city"}' --output output.jpg
curl -X POST $scheme://$address/img2img -H 'Content-Type: multipart/form-data' -F img="@input.jpg" -F data='{"prompt":"View of a cyberpunk city"}' --output output.jpg

kubectl: export KUBECONFIG=$KUBECONFIG
$(if has ray "$hosts"; then
  echo "Page:      $scheme://$address/ui"
  echo "Dashboard: kubectl port-forward service/stable-diffusion-head-svc 8265 --namespace NAMESPACE,"
  echo "           http://localhost:8265; its token: the Secret that KubeRay made beside it"
fi)
Remove it all: deploy/eks/cleanup.sh $configuration
TEXT
[ "$scheme" = http ] || say "Point the certificate's name at $address, and use that name."
