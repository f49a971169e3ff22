"""install.sh and cleanup.sh: their order, run twice, dry, and on wrong input.

There is no cluster here: aws, kubectl, helm and terraform are programs that write down how they are
called. bentoctl is the real one.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
EKS = ROOT / "deploy" / "eks"
RECORDER = """#!/bin/sh
[ -t 0 ] || cat >/dev/null
case "$*" in
  service-quotas*) echo "${QUOTA:-1000.0}";;
  *describe-instance-type-offerings*) echo ${OFFERED-g6.xlarge g5.xlarge};;
  "eks describe-cluster"*status*) printf "$CLUSTER";;
  "eks describe-addon"*configurationValues*) echo "$ADDON";;
  "logs describe-log-groups"*) echo "$LOG_GROUP";;
  *"get pods"*keda-operator*) echo "$KEDA_ENV";;
  list*--selector*) echo "$RELEASES";;
  "apigateway get-account"*) echo "$GATEWAY_ROLE";;
  "ssm get-parameter"*) echo "$API_KEYS";;
  *" state list") printf '%s' "$STATE";;
  "s3api get-bucket-tagging"*) echo "$OWNER";;
  "s3api list-object-versions"*) echo "$HELD";;
  "s3api list-objects-v2"*) echo "$FOUND";;
esac
echo "$(basename "$0") $*" >>"$CALLS"
case "$FAIL_ON" in ?*) case "$(basename "$0") $*" in $FAIL_ON*) exit 1;; esac;; esac
"""


@dataclass
class Desk:
    """A folder with a configuration, and programs that write their calls to `calls`."""

    folder: Path
    configuration: Path
    env: dict[str, str]

    def run(self, script: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(EKS / script), *options, "--folder", str(self.folder), str(self.configuration)],
            cwd=self.folder.parent,
            env={**self.env, **env},
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What was called since last asked."""
        path = Path(self.env["CALLS"])
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def desk(tmp_path: Path, tools: Path) -> Desk:
    programs, folder = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    folder.mkdir()
    for name in ("aws", "kubectl", "helm", "terraform"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    (programs / "docker").symlink_to("/bin/true")  # `docker version` needs a daemon
    document = yaml.safe_load((EKS / "gpu-production.yaml").read_text())
    document["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    configuration = tmp_path / "mine.yaml"
    configuration.write_text(yaml.safe_dump(document))
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "FAIL_ON": "",
        "RELEASES": "",
        "ADDON": "None",
        "LOG_GROUP": "",
        "KEDA_ENV": "",
        "STATE": "",
        "API_KEYS": "one,two",
        "CLUSTER": "status ACTIVE\\nvpc vpc-0123456789abcdef0\\nmode API\\n",
        "BENTOCTL_HOME": str(tmp_path / "home"),
    }
    return Desk(folder, configuration, env)


def order(calls: list[str], *expected: str) -> None:
    """Calls that begin so are there, in this order."""
    places = []
    for start in expected:
        found = [i for i, call in enumerate(calls) if call.startswith(start)]
        assert found, f"no call {start!r} in {calls}"
        places.append(found[0])
    assert places == sorted(places), calls


def test_install_in_order_and_again(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 0, done.stderr
    first = desk.calls()
    order(
        first,
        "aws sts get-caller-identity",
        "aws service-quotas get-service-quota --service-code ec2 --quota-code L-DB2E81BA",
        "aws ec2 describe-instance-type-offerings",
        "terraform init",
        "terraform plan",
        "terraform apply -input=false plan",
        "aws eks update-kubeconfig",
        "kubectl get namespaces",
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api",
        "helm upgrade --install karpenter-crd",
        "helm upgrade --install karpenter ",
        "helm upgrade --install aws-load-balancer-controller",
        "helm upgrade --install keda",
        "aws ssm get-parameter --name /stable-diffusion/api-keys",
        "kubectl apply --server-side -k",
        "kubectl rollout status",
        "kubectl wait gateway/stable-diffusion",
    )
    steps = re.findall(r"^\[(\d)/9 ", done.stdout, re.M)
    assert steps == list("123456789")
    assert "https://" in done.stdout and "curl -X POST" in done.stdout
    assert (desk.folder / "bentoctl.tfvars").exists()
    again = desk.run("install.sh", "--yes")
    assert again.returncode == 0, again.stderr
    assert sorted(desk.calls()) == sorted(first)


def test_the_keys_go_from_the_parameter_into_the_secret(desk: Desk) -> None:
    kubectl = Path(desk.env["PATH"].split(":")[0]) / "kubectl"
    keep = 'case "$*" in *"secret generic"*) cat >"$CALLS.keys";; esac\n'
    kubectl.write_text(RECORDER.replace("#!/bin/sh\n", "#!/bin/sh\n" + keep))
    assert desk.run("install.sh", "--yes").returncode == 0
    assert Path(desk.env["CALLS"] + ".keys").read_text() == "one,two"


@pytest.mark.parametrize(("fails", "keys"), [("aws ssm", "one"), ("", "")])
def test_keys_that_cannot_be_read_leave_the_secret_as_it_is(
    desk: Desk, fails: str, keys: str
) -> None:
    """An empty Secret would open the service to everybody, from the next start of a pod on."""
    done = desk.run("install.sh", "--yes", FAIL_ON=fails, API_KEYS=keys)
    assert done.returncode == 1
    assert "no keys can be read from the SSM parameter /stable-diffusion/api-keys" in done.stderr
    calls = desk.calls()
    assert not [
        call for call in calls if "create secret" in call or "apply --server-side -k" in call
    ]


def test_a_queue_has_no_balancer(desk: Desk) -> None:
    desk.configuration.write_text((EKS / "queue.yaml").read_text())
    done = desk.run("install.sh", "--dry-run")
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^\[(\d)/9 ", done.stdout, re.M)
    assert steps == list("123456789")
    assert "hosts.queue.front.package" in done.stdout and "gateway/stable" not in done.stdout


ROLES = "arn:aws:iam::123456789012:role/"


@pytest.mark.parametrize(
    ("makes", "role", "words"),
    [
        (False, "None", "set api_gateway_account: true"),
        (True, ROLES + "others", "role/others already; leave api_gateway_account out"),
        (False, ROLES + "sd-runtimes-us-east-1-gateway-logs", "set api_gateway_account: true"),
        (True, "None", ""),
        (True, ROLES + "sd-runtimes-us-east-1-gateway-logs", ""),
        (False, ROLES + "others", ""),
    ],
)
def test_the_regions_role_for_logs_of_apis_stays_who_it_is(
    desk: Desk, makes: bool, role: str, words: str
) -> None:
    document = yaml.safe_load((EKS / "queue-several.yaml").read_text())
    document["spec"]["api_gateway_account"] = makes
    desk.configuration.write_text(yaml.safe_dump(document))
    done = desk.run("install.sh", "--yes", GATEWAY_ROLE=role, QUOTA="0")
    assert done.returncode == 1
    # what is right goes on, to the quotas
    assert (words or "0 virtual CPUs") in done.stderr


def test_a_quota_that_is_too_small_stops_before_anything_is_made(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes", QUOTA="4.0")
    assert done.returncode == 1
    assert "4 virtual CPUs of g, 8 are needed" in done.stderr
    assert "request-service-quota-increase --region us-east-1 --service-code ec2" in done.stdout
    assert "--quota-code L-DB2E81BA --desired-value 80" in done.stdout
    assert not [call for call in desk.calls() if call.startswith("terraform")]


def test_a_quota_for_the_system_nodes_and_rays_head(desk: Desk) -> None:
    ray = yaml.safe_load((EKS / "ray-gpu.yaml").read_text())
    desk.configuration.write_text(yaml.safe_dump(ray))
    done = desk.run("install.sh", "--yes", QUOTA="5.0")  # a new account's
    assert done.returncode == 1
    assert "5 virtual CPUs of standard, 8 are needed" in done.stderr
    assert "--quota-code L-1216C47A --desired-value 14" in done.stdout


def test_a_log_group_that_eks_made_again_is_taken(desk: Desk) -> None:
    group = "/aws/eks/sd-production/cluster"
    assert desk.run("install.sh", "--yes").returncode == 0
    assert not [call for call in desk.calls() if "import" in call]
    done = desk.run("install.sh", "--yes", LOG_GROUP=group)
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    order(calls, "terraform init", "terraform import", "terraform plan")
    (taken,) = [call for call in calls if "import" in call]
    assert taken.endswith(f"aws_cloudwatch_log_group.cluster[0] {group}")
    desk.run("cleanup.sh", "--yes", "--keep-images")
    order(desk.calls(), "terraform destroy", f"aws logs delete-log-group --log-group-name {group}")


@pytest.fixture
def models(desk: Desk) -> Desk:
    """A configuration whose bucket of models is made."""
    document = yaml.safe_load(desk.configuration.read_text())
    document["spec"] |= {"models_bucket": "my-models", "model": "s3://my-models/sd/sdxl"}
    desk.configuration.write_text(yaml.safe_dump(document))
    return desk


MODELS = 'aws_s3_bucket.models["my-models"]'
STATE = f'aws_vpc.this\n{MODELS}\naws_s3_bucket_versioning.models["my-models"]\n'
NOT_THERE = "aws s3api head-bucket"


def test_a_model_that_is_not_in_the_new_bucket_is_asked_for(models: Desk) -> None:
    done = models.run("install.sh", "--yes", FAIL_ON=NOT_THERE, FOUND="None")
    assert done.returncode == 1 and "run this again" in done.stderr
    command = (
        "s3://my-models/sd/sdxl is empty: .venv/bin/python -m models push sdxl s3://my-models/sd/"
    )
    assert command in done.stdout
    calls = models.calls()
    order(
        calls, "terraform apply", "aws s3api list-objects-v2 --bucket my-models --prefix sd/sdxl/"
    )
    assert not [call for call in calls if call.startswith("helm") or "import" in call]
    assert models.run("install.sh", "--yes", FAIL_ON=NOT_THERE, FOUND="a").returncode == 0


def test_a_bucket_that_was_left_is_taken_again(models: Desk) -> None:
    done = models.run("install.sh", "--yes", OWNER="sd-production", FOUND="a")
    assert done.returncode == 0, done.stderr
    order(calls := models.calls(), "terraform init", "terraform import", "terraform plan")
    (taken,) = [call for call in calls if "import" in call]
    assert taken.endswith(f"{MODELS} my-models")


@pytest.mark.parametrize("owner", ["None", "sd-another"])
def test_somebody_elses_bucket_is_not_taken(models: Desk, owner: str) -> None:
    done = models.run("install.sh", "--yes", OWNER=owner)
    assert done.returncode == 1 and "my-models is there, and not of this" in done.stderr
    assert not [call for call in models.calls() if "import" in call or "plan" in call]


def test_a_bucket_with_models_stays_as_it_is(models: Desk) -> None:
    done = models.run("cleanup.sh", "--yes", "--keep-images", STATE=STATE, HELD="sd/sdxl/a")
    assert done.returncode == 0, done.stderr
    assert "s3://my-models stays, with the models in it" in done.stdout
    order(calls := models.calls(), "aws s3api list-object-versions", "terraform destroy")
    (forgotten,) = [call for call in calls if " state rm " in call]
    assert forgotten.split(" state rm ")[1].split() == STATE.split()[1:]


def test_an_empty_bucket_of_models_goes(models: Desk) -> None:
    done = models.run("cleanup.sh", "--yes", "--keep-images", STATE=STATE, HELD="None")
    assert done.returncode == 0 and "stays" not in done.stdout
    assert not [call for call in models.calls() if " state rm " in call]


LOOKED = "aws s3api list-object-versions"


def test_a_bucket_of_models_that_somebody_deleted_holds_nothing_up(models: Desk) -> None:
    gone = "An error occurred (NoSuchBucket) when calling the ListObjectVersions operation"
    done = models.run(
        "cleanup.sh", "--yes", "--keep-images", STATE=STATE, HELD=gone, FAIL_ON=LOOKED
    )
    assert done.returncode == 0, done.stderr
    order(models.calls(), LOOKED, "terraform destroy")


def test_a_bucket_of_models_that_cannot_be_looked_into_is_not_destroyed(models: Desk) -> None:
    done = models.run(
        "cleanup.sh", "--yes", "--keep-images", STATE=STATE, HELD="AccessDenied", FAIL_ON=LOOKED
    )
    assert done.returncode == 1 and "AccessDenied" in done.stderr
    assert not [call for call in models.calls() if "destroy" in call]


def test_a_bucket_with_models_that_is_named_no_more_stays_as_it_is(models: Desk) -> None:
    document = yaml.safe_load(models.configuration.read_text())
    document["spec"] |= {"models_bucket": "new-models", "model": "s3://new-models/sd/sdxl"}
    models.configuration.write_text(yaml.safe_dump(document))
    given = {"STATE": STATE, "HELD": "sd/sdxl/a", "FOUND": "a", "OWNER": "sd-production"}
    done = models.run("install.sh", "--yes", **given)
    assert done.returncode == 0, done.stderr
    assert "s3://my-models stays, with the models in it" in done.stdout
    order(calls := models.calls(), LOOKED, "terraform plan")
    (forgotten,) = [call for call in calls if " state rm " in call]
    assert "my-models" in forgotten


def test_keda_gets_its_right_to_read_the_queue(desk: Desk) -> None:
    """Pod Identity gives a pod its credentials when the pod is made."""
    queue = yaml.safe_load((EKS / "queue.yaml").read_text())
    queue["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    desk.configuration.write_text(yaml.safe_dump(queue))
    restart = "kubectl rollout restart deployment/keda-operator --namespace keda"
    desk.run("install.sh", "--yes")
    order(desk.calls(), "helm upgrade --install keda", restart)
    desk.run("install.sh", "--yes", KEDA_ENV="POD_NAME AWS_CONTAINER_CREDENTIALS_FULL_URI")
    assert restart not in desk.calls()


def test_a_quota_below_the_most_is_told(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes", QUOTA="16.0")
    assert done.returncode == 0, done.stderr
    assert "--quota-code L-DB2E81BA --desired-value 80" in done.stdout


def test_instances_that_the_region_does_not_offer(desk: Desk) -> None:
    told = desk.run("install.sh", "--yes", OFFERED="g5.xlarge")
    assert told.returncode == 0 and "g6.xlarge is not offered in us-east-1" in told.stdout
    none = desk.run("install.sh", "--yes", OFFERED="")
    assert none.returncode == 1 and "is offered in us-east-1" in none.stderr


def test_spot_instances_get_their_service_linked_role(desk: Desk) -> None:
    document = yaml.safe_load(desk.configuration.read_text())
    document["spec"]["capacity"] = "spot-first"
    desk.configuration.write_text(yaml.safe_dump(document))
    desk.run("install.sh", "--yes", FAIL_ON="aws iam get-role")
    made = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    assert made in desk.calls()
    desk.run("install.sh", "--yes")
    assert made not in desk.calls(), "the account has it already"


def test_a_private_cluster_is_reached_through_a_system_node(desk: Desk) -> None:
    """gpu-production has no api_allowed_cidrs: from outside of the VPC nothing answers."""
    programs = Path(desk.env["PATH"].split(":")[0])
    inside = (
        'case "$*" in *describe-instances*) echo i-1;; *cluster.endpoint*) echo https://E;; esac'
    )
    answers = 'case "$*" in get*namespaces*) [ -e "$CALLS.tunnel" ] || exit 1;; esac\n'
    (programs / "kubectl").write_text(RECORDER + answers)
    start = f'case "$*" in ssm*start-session*) touch "$CALLS.tunnel";; esac\n{inside}\n'
    (programs / "aws").write_text(RECORDER + start)
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 0, done.stderr + done.stdout
    calls = desk.calls()
    (session,) = [call for call in calls if "start-session" in call]
    assert "--target i-1" in session and "host=E,portNumber=443,localPortNumber=8443" in session
    (server,) = [call for call in calls if "set-cluster" in call]
    assert "--server https://127.0.0.1:8443 --tls-server-name E" in server


def test_ray_gets_kuberay_and_waits_for_its_service(desk: Desk) -> None:
    document = yaml.safe_load((EKS / "ray-gpu.yaml").read_text())
    document["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    desk.configuration.write_text(yaml.safe_dump(document))
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 0, done.stderr
    order(
        desk.calls(),
        "aws ecr describe-images --repository-name sd --image-ids imageTag=page-",
        "helm upgrade --install kuberay-operator kuberay-operator --version 1.7.0",
        "kubectl apply --server-side -k",
        "kubectl wait rayservice/stable-diffusion --namespace stable-diffusion",
    )
    assert "/ui" in done.stdout and "port-forward" in done.stdout


def test_the_page_is_built_for_the_nodes(desk: Desk) -> None:
    programs = Path(desk.env["PATH"].split(":")[0])
    (programs / "docker").write_text(RECORDER)
    (programs / "docker").chmod(0o755)
    document = yaml.safe_load((EKS / "ray-gpu.yaml").read_text())
    document["spec"]["image_uri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1"
    desk.configuration.write_text(yaml.safe_dump(document))
    desk.run("install.sh", "--yes", FAIL_ON="aws ecr describe-images")
    order(desk.calls(), "docker build --platform linux/amd64", "docker push")


def test_several_services_are_waited_for_in_their_namespaces(desk: Desk) -> None:
    desk.configuration.write_text((EKS / "several.yaml").read_text())
    done = desk.run("install.sh", "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in (
        "rollout status deployment/stable-diffusion --namespace stable-diffusion-sd ",
        "rollout status deployment/stable-diffusion --namespace stable-diffusion-sdxl ",
        "wait rayservice/stable-diffusion --namespace stable-diffusion-neuron ",
    ):
        assert line in done.stdout


def into_a_cluster(desk: Desk, **fields: object) -> None:
    document = yaml.safe_load((EKS / "existing-cluster.yaml").read_text())
    document["spec"] |= {"image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1", **fields}
    desk.configuration.write_text(yaml.safe_dump(document))


def test_an_existing_cluster_keeps_its_controllers(desk: Desk) -> None:
    into_a_cluster(desk)
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    order(
        calls,
        "aws eks describe-cluster --name platform",
        "aws eks describe-addon --cluster-name platform --addon-name eks-pod-identity-agent",
        "aws eks update-kubeconfig --region us-east-1 --name platform",
        "kubectl get customresourcedefinition nodepools.karpenter.sh",
        "terraform apply",
        "kubectl apply --server-side -k",
    )
    assert not [call for call in calls if call.startswith("helm upgrade")]
    assert not [call for call in calls if "gateway-api" in call], "its CRDs are its owner's"


@pytest.mark.parametrize(
    ("cluster", "fails", "words"),
    [
        ("status CREATING\n", "", "is CREATING"),
        ("status ACTIVE\nvpc vpc-2\n", "", "vpc_id: cluster platform is in vpc-2"),
        ("status ACTIVE\nmode CONFIG_MAP\n", "", "API_AND_CONFIG_MAP"),
        (None, "aws eks describe-cluster", "there is no cluster platform in us-east-1"),
        (None, "aws eks describe-addon", "lacks the add-on eks-pod-identity-agent"),
        (None, "kubectl get customresourcedefinition scaledobjects", "has no keda"),
        (None, "kubectl get namespaces", "does not answer"),
    ],
)
def test_what_an_existing_cluster_lacks(
    desk: Desk, cluster: str | None, fails: str, words: str
) -> None:
    into_a_cluster(desk)
    told = {} if cluster is None else {"CLUSTER": cluster}
    done = desk.run("install.sh", "--yes", FAIL_ON=fails, **told)
    assert done.returncode == 1 and words in done.stderr
    assert not [call for call in desk.calls() if call.startswith("terraform")]


def test_a_mount_that_does_not_come_to_accelerators(desk: Desk) -> None:
    into_a_cluster(desk, model="s3://models/sd")
    done = desk.run("install.sh", "--yes", ADDON='{"node": {"podAnnotations": {}}}')
    assert done.returncode == 1 and '{"node":{"tolerateAllTaints":true}}' in done.stderr
    for values in ('{"node": {"tolerateAllTaints": true}}', "node: {tolerations: []}"):
        done = desk.run("install.sh", "--yes", ADDON=values)
        assert done.returncode == 0, done.stderr


def test_a_controller_of_somebody_else_is_not_upgraded(desk: Desk) -> None:
    into_a_cluster(
        desk, existing_controllers=["keda", "aws-load-balancer-controller"], node_role=None
    )
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 1 and "has a karpenter that is not of this deployment" in done.stderr
    its_own = desk.run("install.sh", "--yes", RELEASES="karpenter")
    assert its_own.returncode == 0, its_own.stderr
    upgraded = [call for call in desk.calls() if call.startswith("helm upgrade")]
    assert upgraded and all("--labels deployment=sd-shared" in call for call in upgraded)


def test_cleanup_takes_only_its_own_from_an_existing_cluster(desk: Desk) -> None:
    into_a_cluster(desk, existing_controllers=["karpenter", "aws-load-balancer-controller"])
    done = desk.run("cleanup.sh", "--yes", "--keep-images", RELEASES="keda")
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    order(
        calls,
        "kubectl delete gateways.gateway.networking.k8s.io --all --namespace stable-diffusion",
        "kubectl delete nodepools.karpenter.sh stable-diffusion-nvidia",
        "kubectl delete ec2nodeclasses.karpenter.k8s.aws stable-diffusion-nvidia",
        "kubectl delete namespace stable-diffusion",
        "kubectl delete persistentvolumes -l app.kubernetes.io/part-of=stable-diffusion",
        "terraform destroy",
    )
    shared = ("nodepools.karpenter.sh --all", "nodeclaims", "get-resources", "terminate-instances")
    assert not [call for call in calls for word in shared if word in call]
    uninstalled = [call.split()[2] for call in calls if call.startswith("helm uninstall")]
    assert uninstalled == ["keda"], "others of these names are their owner's"
    gone = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="aws eks update-kubeconfig")
    assert gone.returncode == 1 and "does not answer" in gone.stderr
    assert not [call for call in desk.calls() if call.startswith("terraform destroy")]


@pytest.mark.parametrize(
    "looks",
    [
        "aws ec2 describe-launch-templates",
        "aws resourcegroupstaggingapi get-resources",
        "aws ec2 describe-security-groups",
        "aws ec2 describe-snapshots",
    ],
)
def test_cleanup_stops_where_it_cannot_look(desk: Desk, looks: str) -> None:
    """What is not seen would stay, and cost, once the cluster is gone."""
    done = desk.run("cleanup.sh", "--yes", FAIL_ON=looks)
    assert done.returncode != 0
    assert "AWS: cluster, network, rights" not in done.stdout, "that step deletes them"


def test_cleanup_stops_where_it_does_not_know_its_releases(desk: Desk) -> None:
    into_a_cluster(desk)
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="helm list")
    assert done.returncode != 0
    assert not [call for call in desk.calls() if call.startswith("terraform destroy")]


def test_a_version_near_its_end_is_refused(desk: Desk) -> None:
    document = yaml.safe_load(desk.configuration.read_text())
    document["spec"]["kubernetes_version"] = "1.33"
    desk.configuration.write_text(yaml.safe_dump(document))
    done = desk.run("install.sh", "--yes")
    assert done.returncode == 1 and "leaves standard support on 2026-07-29" in done.stderr
    # what was made of it can be removed
    assert desk.run("cleanup.sh", "--yes", "--keep-images").returncode == 0


def test_install_stops_where_terraform_fails(desk: Desk) -> None:
    done = desk.run("install.sh", "--yes", FAIL_ON="terraform apply")
    assert done.returncode != 0
    assert not [call for call in desk.calls() if call.startswith(("kubectl", "helm"))]


def test_install_asks_before_it_costs(desk: Desk) -> None:
    assert desk.run("install.sh").returncode != 0
    assert not [call for call in desk.calls() if call.startswith("terraform")]


def test_cleanup_in_order(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images")
    assert done.returncode == 0, done.stderr
    order(
        desk.calls(),
        "kubectl delete httproutes",
        "kubectl delete gateways",
        "kubectl delete scaledobjects",
        "kubectl delete deployments",
        "kubectl delete nodepools",
        "kubectl delete nodeclaims",
        "kubectl delete ec2nodeclasses",
        "helm uninstall karpenter ",
        "helm uninstall keda",
        "helm uninstall kuberay-operator",
        "aws ec2 describe-instances",
        "aws resourcegroupstaggingapi get-resources",
        "aws ec2 describe-security-groups",
        "terraform destroy",
    )


def test_cleanup_without_a_cluster_goes_on(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="aws eks update-kubeconfig")
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    assert not [call for call in calls if call.startswith(("kubectl", "helm"))]
    order(calls, "terraform destroy")


def test_cleanup_stops_where_the_balancer_stays(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="kubectl delete gateways")
    assert done.returncode != 0
    assert not [call for call in desk.calls() if call.startswith(("terraform", "helm"))]


def test_cleanup_without_controllers(desk: Desk) -> None:
    done = desk.run("cleanup.sh", "--yes", "--keep-images", FAIL_ON="kubectl get customresource")
    assert done.returncode == 0, done.stderr
    assert not [call for call in desk.calls() if "nodepools" in call and "delete" in call]


SNAPSHOT = (
    RECORDER
    + """
case "$1 $2" in
  "ec2 describe-snapshots") echo "${SNAPSHOTS:-None}";;
  "ec2 describe-subnets") echo subnet-0123456789abcdef0;;
  "ec2 describe-security-groups") echo sg-0123456789abcdef0;;
  "ec2 run-instances") echo i-0123456789abcdef0;;
  "ssm describe-instance-information") echo Online;;
  "ssm send-command") echo 11111111-2222-3333-4444-555555555555;;
  "ssm get-command-invocation") echo Success;;
  "ec2 describe-instances") echo vol-0123456789abcdef0;;
  "ec2 create-snapshot") echo snap-0123456789abcdef0;;
esac
"""
)


def test_install_takes_a_snapshot_of_the_image_once(desk: Desk) -> None:
    (Path(desk.env["PATH"].split(":")[0]) / "aws").write_text(SNAPSHOT)
    done = desk.run("install.sh", "--yes", "--snapshot")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\[(\d+)/10 ", done.stdout, re.M) == [str(n) for n in range(1, 11)]
    assert nodes_start_from(desk) == {"snap-0123456789abcdef0"}
    order(
        desk.calls(),
        "terraform apply -input=false plan",
        "aws ec2 describe-snapshots",
        "aws ec2 create-snapshot",
        "aws ec2 terminate-instances",
        "kubectl apply --server-side -k",
    )
    again = desk.run("install.sh", "--yes", "--snapshot", SNAPSHOTS="snap-89abcdef")
    assert again.returncode == 0, again.stderr
    calls = desk.calls()
    assert not [call for call in calls if "create-snapshot" in call]
    (looked,) = [call for call in calls if "describe-snapshots" in call]
    assert looked.endswith("with 123456789012.dkr.ecr.us-east-1.amazonaws.com/sd:1")
    assert nodes_start_from(desk) == {"snap-89abcdef"}


def test_a_snapshot_that_fails_ends_the_installation(desk: Desk) -> None:
    (Path(desk.env["PATH"].split(":")[0]) / "aws").write_text(SNAPSHOT)
    done = desk.run("install.sh", "--yes", "--snapshot", FAIL_ON="aws ec2 create-snapshot")
    assert done.returncode == 1
    assert not [call for call in desk.calls() if call.startswith("kubectl apply")]


def nodes_start_from(desk: Desk) -> set[str]:
    text = "".join(path.read_text() for path in (desk.folder / "kubernetes").rglob("*.yaml"))
    return set(re.findall(r"\bsnap-[0-9a-f]+", text)) - {"snap-0000000000000000"}


def test_a_cluster_that_is_there_gets_no_snapshot(desk: Desk) -> None:
    into_a_cluster(desk)
    done = desk.run("install.sh", "--yes", "--snapshot")
    assert done.returncode == 1 and "run snapshot.sh" in done.stderr


def test_cleanup_removes_snapshots_of_the_image(desk: Desk) -> None:
    programs = Path(desk.env["PATH"].split(":")[0])
    answer = 'case "$2" in describe-snapshots) echo snap-1 snap-2;; esac\n'
    (programs / "aws").write_text(RECORDER + answer)
    desk.run("cleanup.sh", "--yes", "--keep-images")
    assert not [call for call in desk.calls() if "-snapshot" in call]
    desk.run("cleanup.sh", "--yes")
    found = [call for call in desk.calls() if "-snapshot" in call]
    assert "Name=tag:deployment,Values=sd-production" in found[0]
    assert found[1:] == [f"aws ec2 delete-snapshot --snapshot-id snap-{n}" for n in (1, 2)]


@pytest.mark.parametrize("script", ["install.sh", "cleanup.sh"])
def test_dry_run_calls_nothing(desk: Desk, script: str) -> None:
    done = desk.run(script, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert desk.calls() == []
    assert not list(desk.folder.iterdir())
    assert "nothing was changed" in done.stdout


@pytest.mark.parametrize("script", ["install.sh", "cleanup.sh"])
def test_help_and_wrong_input(desk: Desk, script: str) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(EKS / script), *arguments]
        return subprocess.run(command, env=desk.env, text=True, capture_output=True, check=False)

    shown = call("--help")
    assert shown.returncode == 0 and "--dry-run" in shown.stdout
    assert "--fast" in call("--fast").stderr
    assert "deploy/eks/gpu.yaml" in call("missing.yaml").stderr
    assert call().returncode == 2
    document = yaml.safe_load(desk.configuration.read_text())
    document["spec"]["region"] = "us-eats-1"
    desk.configuration.write_text(yaml.safe_dump(document))
    refused = call(str(desk.configuration))
    assert refused.returncode == 1 and "did you mean us-east-1?" in refused.stderr
    assert desk.calls() == []
