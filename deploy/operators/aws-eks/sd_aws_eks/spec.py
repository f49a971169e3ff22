"""The fields of a deployment to EKS, and the combinations that do not fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from sd_aws_eks import versions
from sd_aws_eks.instances import EVERY, InstanceType
from sd_bentoctl.instances import INF2_REGIONS
from sd_bentoctl.labels import Need
from sd_bentoctl.spec import (
    OPEN,
    WORLD,
    CertificateArn,
    Cidr,
    ImageUri,
    KmsKeyArn,
    ParameterName,
    Region,
    Spec,
    arn_region,
    closest,
    explain,
    pattern,
)

#: Seconds between "stop" and the end of a pod in which it generates nothing: the load balancer
#: forgets the pod first, and the process ends last.
FORGET_S, END_S = 20, 10
#: A spot instance ends 120 s after its notice; what Karpenter needs of them is left to it.
LONGEST_GRACE_S = 115


def _instance(name: str) -> str:
    if name not in EVERY:
        hint = closest(name, EVERY, cutoff=0.85) or "; use of " + ", ".join(EVERY)
        raise ValueError(f"{name!r} is not an instance type we deploy to{hint}")
    return name


ModelUri = Annotated[
    str,
    pattern(
        r"s3://[a-z0-9.\-]{3,63}/\S+[^/\s]|[\w.\-]+/[\w.\-]+(@[\w.\-]+)?|[\w.\-]+",
        "s3://bucket/folder, a Hub id (owner/name@revision) or a catalog name",
    ),
]
RoleArn = Annotated[
    str, pattern(r"arn:aws:iam::\d{12}:role/[\w+=,.@/\-]+", "arn:aws:iam::123456789012:role/name")
]
SnapshotId = Annotated[str, pattern(r"snap-[0-9a-f]{8,17}", "snap-0123456789abcdef0")]
BottlerocketVersion = Annotated[str, pattern(r"latest|\d+\.\d+\.\d+", "1.30.0, or latest")]
SystemInstance = Annotated[
    str, pattern(r"[cmrt]\d[a-z]*\.(x|2x|4x)?large", "m6i.large (x86, large to 4xlarge)")
]


RuntimeName = Annotated[
    str, pattern(r"(?!legacy$)[a-z0-9][a-z0-9-]{0,29}", "sdxl (a-z, 0-9, -; not legacy)")
]


ServiceName = Annotated[str, pattern(r"[a-z][a-z0-9-]{0,19}", "sdxl (a-z, 0-9, -; up to 20)")]
VpcId = Annotated[str, pattern(r"vpc-[0-9a-f]{8,17}", "vpc-0123456789abcdef0")]
SubnetId = Annotated[str, pattern(r"subnet-[0-9a-f]{8,17}", "subnet-0123456789abcdef0")]
ClusterName = Annotated[str, pattern(r"[A-Za-z0-9][\w-]{0,99}", "my-cluster")]
RoleName = Annotated[str, pattern(r"[\w+=,.@-]{1,64}", "KarpenterNodeRole-my-cluster")]
Controller = Literal[
    "karpenter", "aws-load-balancer-controller", "keda", "kuberay-operator", "neuron"
]
BucketName = Annotated[str, pattern(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "my-terraform-state")]
CapacityReservationId = Annotated[str, pattern(r"cr-[0-9a-f]{8,17}", "cr-0123456789abcdef0")]
HostName = Annotated[
    str, pattern(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", "images.example.com")
]
WebAclArn = Annotated[
    str,
    pattern(
        r"arn:aws:wafv2:[a-z0-9-]+:\d{12}:regional/webacl/[\w-]+/[0-9a-f-]+",
        "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/name/0123...",
    ),
]
Tags = dict[
    Annotated[str, pattern(r"(?!aws:)[\w .:/=+@-]{1,128}", "team (not beginning with aws:)")],
    Annotated[str, Field(max_length=256)],
]


class CognitoSpec(Spec):
    """The user pool whose users see Ray's dashboard."""

    user_pool_arn: Annotated[
        str,
        pattern(
            r"arn:aws:cognito-idp:[a-z0-9-]+:\d{12}:userpool/[\w-]+",
            "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_abc",
        ),
    ]
    client_id: Annotated[str, pattern(r"[a-z0-9]+", "1example23456789")]
    domain: Annotated[str, pattern(r"[a-z0-9.-]+", "my-users")]


class ServiceSpec(Spec):
    """One of several services in a cluster; what it leaves out is as in the deployment's spec."""

    name: ServiceName = Field(description="the service's name, and the end of its namespace's")
    host: Literal["bentoml", "ray"] | None = None
    instance_types: tuple[Annotated[str, AfterValidator(_instance)], ...] | None = None
    capacity: Literal["spot-first", "spot", "on-demand"] | None = None
    precision: Literal["auto", "fp32", "fp16", "bf16"] | None = None
    model: ModelUri | None = None
    image_uri: ImageUri | None = None
    page_image_uri: ImageUri | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    requests_per_replica: int | None = None
    pods_per_gpu: int | None = None
    checkpoint: str | None = None
    queue_length: int | None = None
    priority_queue_length: int | None = None
    polling_s: int | None = None
    cooldown_s: int | None = None
    models_memory_gb: float | None = None
    hostname: HostName | None = Field(
        None, description="the name that it answers to; nothing: the path /NAME of any name"
    )


class EksSpec(Spec):
    """The `spec` of operator aws-eks."""

    # `async` is a word of Python's: the field is async_ here, and async in configurations
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    region: Region = Field(description="the AWS region, like us-east-1")
    instance_types: tuple[Annotated[str, AfterValidator(_instance)], ...] = Field(
        (), description="instance types Karpenter may pick from, like [g5.xlarge, g6.xlarge]"
    )
    host: Literal["bentoml", "ray"] = Field(
        "bentoml",
        description="what serves: bentoml (whole pods scale), or ray (KubeRay, Ray Serve)",
    )
    services: tuple[ServiceSpec, ...] = Field(
        (), description="several services in one cluster, each with a name and fields of its own"
    )
    capacity: Literal["spot-first", "spot", "on-demand"] = Field(
        "spot-first", description="spot-first takes spot where there is any, else on-demand"
    )
    kubernetes_version: Annotated[str, AfterValidator(versions.known)] = Field(
        "1.36", description="the cluster's Kubernetes version, with months of standard support left"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="what the model computes in: fp32, fp16, bf16 (not on g4dn), or auto, which is "
        "fp16, and bf16 for models that overflow in it",
    )
    model: ModelUri | None = Field(
        None,
        description="the model: s3://bucket/folder (mounted), a Hub id, or nothing for the one in "
        "the Bento",
    )
    models_bucket: BucketName | None = Field(
        None,
        description="an S3 bucket to make for models, which `model` may name; what holds models "
        "stays when the deployment goes",
    )
    image_uri: ImageUri | None = Field(
        None, description="an image already pushed; nothing: the one bentoctl build pushes"
    )
    page_image_uri: ImageUri | None = Field(
        None, description="host ray: the web page's image; nothing: install.sh builds and pushes it"
    )
    async_: bool = Field(
        False,
        alias="async",
        description="tasks through a queue instead of a load balancer; each of `services` is a "
        "runtime then, and tasks call it by its name",
    )
    runtime: RuntimeName = Field(
        "sd",
        description="async: what tasks call these workers; dynamic: they load the model that a "
        "task names, of the folder `model`",
    )
    checkpoint: str | None = Field(
        None, description="async: the model file that tasks of the older form name"
    )
    clients: dict[str, Literal["standard", "priority"]] = Field(
        {}, description="async: API keys to make, client to tier"
    )
    queue_length: int = Field(
        10, ge=1, le=10_000, description="async: tasks that one worker should have"
    )
    priority_queue_length: int = Field(
        5, ge=1, le=10_000, description="async: the same, of tasks of the tier priority"
    )
    polling_s: int = Field(
        5, ge=1, le=3600, description="async: KEDA looks at the queue every so many seconds"
    )
    cooldown_s: int = Field(
        60, ge=0, le=86_400, description="async: seconds from the last task to no worker"
    )
    models_memory_gb: float = Field(
        10,
        gt=0,
        le=4000,
        description="async, runtime dynamic: memory for the weights of all loaded models, GB; the "
        "least recently used one goes",
    )
    input_buckets: tuple[BucketName, ...] = Field(
        (), description="async: further buckets that tasks may name input images of"
    )
    results_days: int = Field(30, ge=1, le=3650, description="async: days that results are kept")
    rate_limit: float = Field(
        30, gt=0, le=10_000, description="async: requests per second of one API key"
    )
    burst_limit: int = Field(
        50, ge=1, le=5000, description="async: requests at once of one API key"
    )
    access_log: bool = Field(
        False,
        description="async: a line in CloudWatch for each request to the API, by the role that the "
        "account's region has for logs of API Gateway",
    )
    api_gateway_account: bool = Field(
        False,
        description="with access_log: also makes that role, where the account's region has none",
    )
    cloudfront: bool = Field(
        False,
        description="async: CloudFront before the API, which caches nothing; with its name and "
        "certificate",
    )
    cloudfront_hostname: HostName | None = Field(
        None, description="with cloudfront: the name that it answers to"
    )
    cloudfront_certificate_arn: CertificateArn | None = Field(
        None, description="with cloudfront: that name's ACM certificate, in us-east-1"
    )
    max_wait_s: int = Field(
        900, ge=60, description="async: an alarm when the oldest task has waited longer"
    )
    min_replicas: int = Field(
        1, ge=0, le=100, description="pods at least, one accelerator each; 0 with async only"
    )
    max_replicas: int = Field(4, ge=1, le=100, description="pods at most")
    requests_per_replica: int = Field(
        4,
        ge=1,
        le=1000,
        description="requests that one replica should have, waiting or being generated: its batch",
    )
    pods_per_gpu: int = Field(
        1,
        ge=1,
        le=4,
        description="pods that share one GPU by time-slicing, each with a model of its own in its "
        "memory; for small models",
    )
    drain_s: int = Field(
        60,
        ge=5,
        le=LONGEST_GRACE_S - FORGET_S - END_S,
        description="seconds that requests in flight get when a pod stops; a spot notice gives 120",
    )
    volume_gib: int = Field(
        80, ge=40, le=2000, description="the nodes' volume for images and caches, GiB"
    )
    image_snapshot_id: SnapshotId | None = Field(
        None,
        description="a snapshot of that volume with the image already pulled, by "
        "deploy/eks/snapshot.sh",
    )
    bottlerocket_version: BottlerocketVersion = Field(
        "latest", description="the nodes' system; a fixed one keeps nodes until you change it"
    )
    system_instance_type: SystemInstance = Field(
        "m6i.large", description="the two nodes that hold controllers"
    )
    cluster: ClusterName | None = Field(
        None, description="an existing EKS cluster in vpc_id; nothing: a new one, called as `name`"
    )
    existing_controllers: tuple[Controller, ...] = Field(
        (),
        description="with cluster: what it has already of karpenter, aws-load-balancer-controller, "
        "keda, kuberay-operator, neuron (its device plugin); the others are installed",
    )
    node_role: RoleName | None = Field(
        None, description="with an existing karpenter: the role that its nodes have"
    )
    vpc_cidr: Cidr = Field("10.42.0.0/16", description="the VPC's addresses, /16 to /20")
    vpc_id: VpcId | None = Field(
        None, description="an existing VPC, whose addresses vpc_cidr names; nothing: a new one"
    )
    private_subnet_ids: tuple[SubnetId, ...] = Field(
        (), description="with vpc_id: private subnets with a way out, in two zones or more"
    )
    public_subnet_ids: tuple[SubnetId, ...] = Field(
        (),
        description="with vpc_id and allowed_cidrs: public subnets for the balancer, unless it is "
        "internal",
    )
    nat_per_zone: bool = Field(False, description="one NAT gateway a zone instead of one in all")
    api_allowed_cidrs: tuple[Cidr, ...] = Field(
        (),
        description="networks that may reach the Kubernetes API; none: its endpoint is private",
    )
    admin_role_arns: tuple[RoleArn, ...] = Field(
        (), description="IAM roles that administer the cluster, beside the one that creates it"
    )
    internal: bool = Field(False, description="a balancer with private addresses only")
    allowed_cidrs: tuple[Cidr, ...] = Field(
        (),
        description="networks that may reach the service; none: only the VPC itself, by an "
        "internal balancer",
    )
    certificate_arn: CertificateArn | None = Field(
        None, description="an ACM certificate for https; nothing: plain http"
    )
    dashboard_users: CognitoSpec | None = Field(
        None, description="host ray: whose users see Ray's dashboard; nothing: by port-forward only"
    )
    web_acl_arn: WebAclArn | None = Field(
        None, description="an AWS WAF web ACL before the load balancer, or before the tasks' API"
    )
    container_insights: bool = Field(
        True, description="CloudWatch's agents on every node: metrics, logs, and traces"
    )
    tracing: bool = Field(False, description="traces of requests to X-Ray, by the CloudWatch agent")
    capacity_reservation_ids: tuple[CapacityReservationId, ...] = Field(
        (), description="capacity reservations that nodes use before they use anything else"
    )
    state_bucket: BucketName | None = Field(
        None, description="an S3 bucket for Terraform's state and its lock; nothing: the folder"
    )
    tags: Tags = Field({}, description="tags of yours for everything that is made in AWS")
    alarm_email: Annotated[str, pattern(r"[^@\s]+@[^@\s]+", "you@example.com")] | None = Field(
        None, description="who hears of alarms; AWS asks the address to confirm"
    )
    monthly_budget_usd: int | None = Field(
        None, ge=1, description="with alarm_email: AWS tells when the month's bill passes 80% of it"
    )
    allow_plain_http: bool = Field(
        False, description="plain http although the whole world may reach it"
    )
    api_keys_parameter: ParameterName | None = Field(
        None, description="an SSM SecureString whose value becomes the API keys"
    )
    kms_key_arn: KmsKeyArn | None = Field(
        None,
        description="a key of yours for Kubernetes secrets, logs and images, whose policy lets "
        "logs.REGION.amazonaws.com encrypt (docs/runbooks.md); nothing: a new one",
    )
    model_kms_key_arn: KmsKeyArn | None = Field(
        None, description="the key that models in S3 are encrypted with, where it is one of yours"
    )
    log_retention_days: Literal[1, 3, 7, 14, 30, 60, 90, 180, 365] = Field(
        30, description="how long logs are kept"
    )

    @property
    def instances(self) -> tuple[InstanceType, ...]:
        """The catalog's entries, the least memory first."""
        found = [EVERY[name] for name in self.instance_types]
        return tuple(sorted(found, key=lambda one: one.memory_gib / one.devices))

    @property
    def accelerator(self) -> Literal["nvidia", "neuron"]:
        """All instance types have the same kind."""
        return self.instances[0].accelerator

    @property
    def model_bucket(self) -> str | None:
        """The bucket of a model in S3."""
        return self.model.split("/")[2] if self.model and self.model.startswith("s3://") else None

    @property
    def model_prefix(self) -> str:
        """The models' folder in the bucket, with a slash at the end; empty without a bucket."""
        return self.model.split("/", 3)[3] + "/" if self.model and self.model_bucket else ""

    @property
    def scheme(self) -> Literal["internal", "internet-facing"]:
        """The balancer's: an internet-facing one sees callers from its VPC at the NAT's address."""
        return "internal" if self.internal or not self.allowed_cidrs else "internet-facing"

    @property
    def balancer_subnet_ids(self) -> tuple[str, ...]:
        """Subnets of the balancer in an existing VPC; empty where the VPC is made."""
        return self.private_subnet_ids if self.scheme == "internal" else self.public_subnet_ids

    @property
    def pulls_in_parallel(self) -> bool:
        """True when the nodes' system has SOCI's parallel pull: Bottlerocket has it since 1.44."""
        return self._bottlerocket_since(1, 44)

    def _bottlerocket_since(self, *version: int) -> bool:
        named = self.bottlerocket_version
        return named == "latest" or tuple(map(int, named.split(".")))[:2] >= version

    @property
    def placements(self) -> tuple[tuple[ServiceSpec | None, EksSpec], ...]:
        """Each service with the spec that it has alone; one without a name where there is one."""
        if not self.services:
            return ((None, self),)
        return tuple((one, self._of(one)) for one in self.services)

    @property
    def dynamic(self) -> bool:
        """True when these workers load the model that a task names."""
        return self.async_ and self.runtime == "dynamic"

    def _of(self, service: ServiceSpec) -> EksSpec:
        own = service.model_dump(exclude={"name", "hostname"}, exclude_none=True)
        if self.async_:
            own["runtime"] = service.name
        shared = {name: getattr(self, name) for name in EksSpec.model_fields if name != "services"}
        return EksSpec(**{**shared, **own})

    @property
    def needs(self) -> set[Need]:
        """The kinds of Bento that the services need, of those that get the image that is built."""
        built = [spec for _, spec in self.placements if not spec.image_uri]
        return {Need(spec.precision, spec.accelerator, spec.host) for spec in built}

    @property
    def accelerators(self) -> tuple[str, ...]:
        """The kinds of accelerators that the cluster has."""
        return tuple(sorted({spec.accelerator for _, spec in self.placements}))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The services of the cluster."""
        return tuple(sorted({spec.host for _, spec in self.placements}))

    @property
    def instance_names(self) -> tuple[str, ...]:
        """Every instance type that a service may get."""
        return tuple(sorted({name for _, spec in self.placements for name in spec.instance_types}))

    def problems(self) -> Iterator[str]:
        """Yield what does not go together, each as `field: problem; fix`."""
        yield from self._several()
        yield from self._counts()
        yield from self._front()
        yield from self._hardware()
        yield from self._sharing()
        yield from self._network()
        yield from self._existing_network()
        yield from self._existing_cluster()
        yield from self._told()
        yield from self._exposure()
        yield from self._cloudfront()
        yield from self._regions()

    def _several(self) -> Iterator[str]:
        if not self.services:
            return
        names = [one.name for one in self.services]
        if twice := {name for name in names if names.count(name) > 1}:
            yield f"services: {', '.join(twice)} is there twice; names are unique"
        if self.async_ and any(one.hostname for one in self.services):
            yield "services: tasks come through one API; leave hostname out"
        for one in self.services:
            try:
                self._of(one)
            except ValidationError as error:
                told = explain(error, EksSpec, f"{one.name}: ")
                yield ("services: " + "; ".join(told))

    def _counts(self) -> Iterator[str]:
        if self.min_replicas > self.max_replicas:
            yield (
                f"max_replicas: {self.max_replicas} is below min_replicas {self.min_replicas}; "
                "raise it"
            )

    def _front(self) -> Iterator[str]:
        if self.async_:
            if self.host == "ray":
                yield "host: async tasks have workers of their own; leave it out"
            yield from self.where_set(
                "allowed_cidrs",
                "certificate_arn",
                "api_keys_parameter",
                "internal",
                why="is for the load balancer, and async tasks come through API "
                "Gateway with a key each; leave it out",
            )
            if self.runtime == "dynamic" and not (self.model_bucket or self.services):
                yield (
                    "model: the runtime dynamic needs s3://bucket/folder, with a folder per model"
                )
            return
        if not self.min_replicas:
            yield "min_replicas: a load balancer needs 1 at least; 0 is for async: true"
        if self.clients:
            yield "clients: are API Gateway's; set async: true, or api_keys_parameter"

    def _hardware(self) -> Iterator[str]:
        if self.services and not self.instance_types:
            return
        if not self.instance_types:
            yield "instance_types: is empty; name one or more, like [g5.xlarge]"
        kinds = {one.accelerator for one in self.instances}
        if len(kinds) > 1:
            yield (
                "instance_types: GPU and Inferentia2 need different images; "
                "use types of one kind, and a second of `services` for the other"
            )
        inf2 = any(name.startswith("inf2") for name in self.instance_types)
        if inf2 and self.region not in INF2_REGIONS:
            yield (
                f"region: inf2 is not offered in {self.region}; use one of "
                + ", ".join(sorted(INF2_REGIONS))
            )
        if self.precision == "bf16" and any(n.startswith("g4dn") for n in self.instance_types):
            yield "precision: the T4 of g4dn has no bf16; use fp16"

    def _sharing(self) -> Iterator[str]:
        if self.pods_per_gpu == 1 or not self.instance_types:
            return
        if self.accelerator != "nvidia" or self.host == "ray":
            yield "pods_per_gpu: is for NVIDIA GPUs, and not for host: ray"
        if not self._bottlerocket_since(1, 29):
            yield "bottlerocket_version: pods_per_gpu needs 1.29 or newer"

    def _network(self) -> Iterator[str]:
        length = int(self.vpc_cidr.split("/")[-1]) if "/" in self.vpc_cidr else 32
        if ":" in self.vpc_cidr or not 16 <= length <= 20:
            yield (
                f"vpc_cidr: {self.vpc_cidr} is not IPv4 between /16 and /20; every pod has an "
                "address of its own, use one like 10.42.0.0/16"
            )
        for name in ("allowed_cidrs", "api_allowed_cidrs"):
            if any(":" in cidr for cidr in getattr(self, name)):
                yield f"{name}: only IPv4 is served; use IPv4 networks"

    def _existing_network(self) -> Iterator[str]:
        if not self.vpc_id:
            why = "are of an existing VPC; name it in vpc_id"
            yield from self.where_set("private_subnet_ids", "public_subnet_ids", why=why)
            return
        if len(self.private_subnet_ids) < 2:
            yield "private_subnet_ids: two or more are needed, in different zones"
        if self.scheme != "internal" and len(self.public_subnet_ids) < 2:
            yield (
                "public_subnet_ids: two or more are needed for the balancer; or set internal: true"
            )

    def _existing_cluster(self) -> Iterator[str]:
        if not self.cluster:
            why = "is of an existing cluster; name it in cluster"
            yield from self.where_set("existing_controllers", "node_role", why=why)
            return
        if not self.vpc_id:
            yield "vpc_id: is required with cluster; name the VPC that it is in"
        why = "is decided by the owner of cluster; leave it out"
        yield from self.where_set("api_allowed_cidrs", "admin_role_arns", "nat_per_zone", why=why)
        if ("karpenter" in self.existing_controllers) != bool(self.node_role):
            yield (
                "node_role: goes with an existing karpenter; name the role that its nodes have, "
                "and karpenter in existing_controllers"
            )
        if self.async_ and "keda" in self.existing_controllers:
            yield (
                "existing_controllers: KEDA reads the queues by a role that is made here for the "
                "one that is installed here; async: true needs a cluster without keda"
            )

    def _told(self) -> Iterator[str]:
        if self.dashboard_users and not ("ray" in self.hosts and self.certificate_arn):
            yield "dashboard_users: is for host: ray, and needs a certificate_arn"
        if self.api_gateway_account and not self.access_log:
            yield "api_gateway_account: is for the access log; set access_log: true"
        if self.tracing and not self.container_insights:
            yield "tracing: is by CloudWatch's agent; set container_insights: true"
        if self.monthly_budget_usd and not self.alarm_email:
            yield "alarm_email: is who hears of the budget; name one"
        if self.models_bucket and self.models_bucket == self.state_bucket:
            yield (
                "models_bucket: is Terraform's own state_bucket, which is there already; name two"
            )

    def _exposure(self) -> Iterator[str]:
        if any(cidr in WORLD for cidr in self.api_allowed_cidrs):
            yield (
                "api_allowed_cidrs: the Kubernetes API is not opened to the whole world; "
                "name your networks, or leave it empty and work from inside the VPC"
            )
        open_to_all = any(cidr in WORLD for cidr in self.allowed_cidrs)
        if open_to_all and not (self.certificate_arn or self.allow_plain_http):
            yield OPEN

    def _cloudfront(self) -> Iterator[str]:
        parts = ("cloudfront_hostname", "cloudfront_certificate_arn")
        if not self.cloudfront:
            yield from self.where_set(*parts, why="is of CloudFront; set cloudfront: true")
            return
        if not self.async_:
            yield ("cloudfront: is before the tasks' API; set async: true, or leave it out")
        for name in parts:
            if not getattr(self, name):
                yield (
                    f"{name}: is required with cloudfront, as CloudFront's own name takes TLS 1.0; "
                    "give both"
                )
        region = arn_region(self.cloudfront_certificate_arn or "")
        if region != "us-east-1":
            yield (
                f"cloudfront_certificate_arn: is in {region}; CloudFront takes those of us-east-1"
            )

    def _regions(self) -> Iterator[str]:
        yield from self.elsewhere(
            self.region, "certificate_arn", "kms_key_arn", "model_kms_key_arn", "web_acl_arn"
        )
        image = re.search(r"\.dkr\.ecr\.([a-z0-9-]+)\.", self.image_uri or "")
        if image and image[1] != self.region:
            yield (
                f"image_uri: is in {image[1]}, the deployment in {self.region}; push it there, so "
                "that nodes need not pull across regions"
            )
