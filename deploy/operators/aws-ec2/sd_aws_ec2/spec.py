"""The fields of a deployment to EC2, and the combinations that do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sd_bentoctl.instances import INF2_REGIONS, INSTANCES, InstanceType
from sd_bentoctl.labels import Need
from sd_bentoctl.spec import (
    OPEN,
    WORLD,
    AmiId,
    CertificateArn,
    Cidr,
    ImageUri,
    KmsKeyArn,
    ParameterName,
    Region,
    Spec,
    SubnetId,
    VpcId,
    closest,
    pattern,
)


def _instance(name: str) -> str:
    if name not in INSTANCES:
        hint = closest(name, INSTANCES, cutoff=0.85) or "; use one of " + ", ".join(INSTANCES)
        raise ValueError(f"{name!r} is not an instance type we deploy to{hint}")
    return name


ModelUri = Annotated[
    str,
    pattern(
        r"s3://[a-z0-9.\-]{3,63}/\S+|[\w.\-]+/[\w.\-]+(@[\w.\-]+)?|[\w.\-]+",
        "s3://bucket/folder, a Hub id (owner/name@revision) or a catalog name",
    ),
]


#: EC2 takes a spot instance 120 s after its notice, and looks for one take up to 10 s.
LONGEST_SPOT_DRAIN_S = 100


class Ec2Spec(Spec):
    """The `spec` of operator aws-ec2."""

    region: Region = Field(description="the AWS region, like us-east-1")
    instance_type: Annotated[str, AfterValidator(_instance)] = Field(
        description="the EC2 instance type, like g5.xlarge"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="what the model computes in: fp32, fp16, bf16 (not on g4dn), or auto, which is "
        "fp16, and bf16 for models that overflow in it",
    )
    model: ModelUri | None = Field(
        None,
        description="the model: s3://bucket/folder, a Hub id, or nothing for the one in the Bento",
    )
    model_gib: int = Field(1, ge=1, le=500, description="the model's size on disk, GiB")
    volume_gib: int | None = Field(
        None,
        ge=100,
        le=16384,
        description="the root volume, GiB; nothing: the AMI's own size, 30 for the image, and "
        "twice the model's",
    )
    image_uri: ImageUri | None = Field(
        None, description="an image already pushed; nothing: the one bentoctl build pushes"
    )
    ami_id: AmiId | None = Field(
        None, description="a fixed AMI; nothing: the current Deep Learning AMI, by SSM parameter"
    )
    min_instances: int = Field(
        1,
        ge=1,
        le=100,
        description="instances at least; a request cannot start the first one",
    )
    max_instances: int = Field(1, ge=1, le=100, description="instances at most")
    requests_per_replica: int = Field(
        4,
        ge=1,
        le=1000,
        description="requests that one replica should have, waiting or being generated: its batch; "
        "an instance has a replica per accelerator",
    )
    enable_gpus: bool | None = Field(
        None, description="nothing: the instance type says it; read for older configurations"
    )
    spot: bool = Field(False, description="spot instances instead of on-demand ones")
    on_demand_base: int = Field(
        0, ge=0, le=100, description="with spot: so many instances are on demand all the same"
    )
    other_instance_types: tuple[Annotated[str, AfterValidator(_instance)], ...] = Field(
        (), description="with spot: further types of the same kind, so that one is free more often"
    )
    boot_grace_s: int = Field(
        900,
        ge=300,
        le=7200,
        description="seconds until health counts: boot, image pull, model loading",
    )
    drain_s: int = Field(
        75, ge=10, le=3600, description="seconds that requests in flight get when an instance stops"
    )
    vpc_id: VpcId | None = Field(None, description="an existing VPC; nothing: a new one is made")
    balancer_subnet_ids: tuple[SubnetId, ...] = Field(
        (), description="with vpc_id: two subnets or more, in different zones, for the balancer"
    )
    instance_subnet_ids: tuple[SubnetId, ...] = Field(
        (), description="with vpc_id: private subnets, with a way out, for the instances"
    )
    vpc_cidr: Cidr = Field("10.42.0.0/16", description="the new VPC's addresses, /16 to /24")
    internal: bool = Field(False, description="a balancer with private addresses only")
    allowed_cidrs: tuple[Cidr, ...] = Field(
        (), description="networks that may reach the service; none: nobody from outside"
    )
    certificate_arn: CertificateArn | None = Field(
        None, description="an ACM certificate for https; nothing: plain http"
    )
    allow_plain_http: bool = Field(
        False, description="plain http although the whole world may reach it"
    )
    api_keys_parameter: ParameterName | None = Field(
        None, description="an SSM SecureString whose value becomes SD_API_KEYS"
    )
    kms_key_arn: KmsKeyArn | None = Field(
        None, description="a key of yours for volumes, logs and images; nothing: AWS's own keys"
    )
    log_retention_days: Literal[1, 3, 7, 14, 30, 60, 90, 180, 365] = Field(
        30, description="how long logs are kept"
    )
    deletion_protection: bool = Field(
        False, description="the balancer refuses deletion (bentoctl destroy fails then)"
    )

    @property
    def instance(self) -> InstanceType:
        """The catalog's entry."""
        return INSTANCES[self.instance_type]

    @property
    def host(self) -> Literal["bentoml", "ray"]:
        """The host in the container: Ray where each of several accelerators gets a replica."""
        return "ray" if self.instance.devices > 1 else "bentoml"

    @property
    def needs(self) -> set[Need]:
        """The kinds of Bento that fit: this precision, accelerator and host."""
        return {Need(self.precision, self.instance.accelerator, self.host)}

    def problems(self) -> Iterator[str]:
        """Yield what does not go together, each as `field: problem; fix`."""
        yield from self._counts()
        yield from self._hardware()
        yield from self._spot()
        yield from self._network()
        yield from self._model()
        yield from self._exposure()
        yield from self._regions()

    def _counts(self) -> Iterator[str]:
        if self.min_instances > self.max_instances:
            yield (
                f"max_instances: {self.max_instances} is below min_instances "
                f"{self.min_instances}; raise it"
            )

    def _hardware(self) -> Iterator[str]:
        if self.instance.accelerator == "neuron" and self.region not in INF2_REGIONS:
            yield (
                f"region: {self.instance_type} is not offered in {self.region}; use one of "
                + ", ".join(sorted(INF2_REGIONS))
            )
        has_gpu = self.instance.accelerator == "nvidia"
        if self.enable_gpus is not None and self.enable_gpus != has_gpu:
            what = "GPUs, which are always used" if has_gpu else "Inferentia2 chips and no GPU"
            yield f"enable_gpus: {self.instance_type} has {what}; leave the field out"
        if self.precision == "bf16" and self.instance_type.startswith("g4dn"):
            yield "precision: the T4 of g4dn has no bf16; use fp16"

    def _spot(self) -> Iterator[str]:
        if not self.spot:
            why = "is for spot instances; set spot: true"
            yield from self.where_set("on_demand_base", "other_instance_types", why=why)
        if self.on_demand_base > self.max_instances:
            yield f"on_demand_base: is above max_instances {self.max_instances}"
        shape = self.instance.accelerator, self.instance.devices
        for name in self.other_instance_types:
            if (INSTANCES[name].accelerator, INSTANCES[name].devices) != shape:
                yield (
                    f"other_instance_types: {name} has other accelerators than "
                    f"{self.instance_type}, or another number of them"
                )
        if self.spot and self.drain_s > LONGEST_SPOT_DRAIN_S:
            yield (
                f"drain_s: a spot notice gives 120 s; {LONGEST_SPOT_DRAIN_S} is the most with spot"
            )

    def _network(self) -> Iterator[str]:
        if self.vpc_id and len(self.balancer_subnet_ids) < 2:
            yield (
                "balancer_subnet_ids: a load balancer needs two subnets or more of vpc_id, "
                "in different zones; list them"
            )
        if self.vpc_id and not self.instance_subnet_ids:
            yield "instance_subnet_ids: is required with vpc_id; list private subnets"
        if not self.vpc_id and (self.balancer_subnet_ids or self.instance_subnet_ids):
            yield "vpc_id: is required with subnets; name the VPC they are in"
        if not 16 <= int(self.vpc_cidr.split("/")[-1] if "/" in self.vpc_cidr else 32) <= 24:
            yield f"vpc_cidr: {self.vpc_cidr} is not between /16 and /24"

    def _model(self) -> Iterator[str]:
        if self.model and self.model.startswith("s3://") and self.model.endswith(".safetensors"):
            yield (
                "model: is one file; name its folder (a diffusers model), "
                "or build the checkpoint into the Bento"
            )

    def _exposure(self) -> Iterator[str]:
        open_to_all = any(cidr in WORLD for cidr in self.allowed_cidrs)
        if open_to_all and not (self.certificate_arn or self.allow_plain_http):
            yield OPEN
        if self.allowed_cidrs and any(":" in cidr for cidr in self.allowed_cidrs):
            yield "allowed_cidrs: the balancer has IPv4 addresses only; use IPv4"

    def _regions(self) -> Iterator[str]:
        yield from self.elsewhere(self.region, "certificate_arn", "kms_key_arn")
        image = self.image_uri or ""
        if ".dkr.ecr." in image and f".dkr.ecr.{self.region}." not in image:
            yield (
                f"image_uri: is in another region than {self.region}; push it there, so that "
                "instances need not pull across regions"
            )
