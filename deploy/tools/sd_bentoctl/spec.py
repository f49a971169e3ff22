"""Field types of deployment configurations, and errors in words a user can act on."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

OPEN = (
    "certificate_arn: is required when allowed_cidrs holds the whole world; "
    "give one, narrow allowed_cidrs, or accept plain http with allow_plain_http: true"
)
#: Commercial regions (AWS account guide). GovCloud and China need other partitions' ARNs.
REGIONS = tuple(
    """af-south-1 ap-east-1 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
    ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-7
    ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1
    eu-west-2 eu-west-3 il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1
    us-east-2 us-west-1 us-west-2""".split()  # noqa: SIM905
)
WORLD = ("0.0.0.0/0", "::/0")


class Spec(BaseModel):
    """The `spec` of an operator: unknown fields are refused, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := next(self.problems(), None):
            raise ValueError(problem)
        return self

    def problems(self) -> Iterator[str]:
        """Yield what does not go together, each as `field: problem; fix`."""
        return iter(())

    def where_set(self, *names: str, why: str) -> Iterator[str]:
        """Yield a problem for each of these fields that is set."""
        return (f"{name}: {why}" for name in names if getattr(self, name))

    def elsewhere(self, region: str, *names: str) -> Iterator[str]:
        """Yield a problem for each of these fields that has an ARN of another region."""
        for name in names:
            arn = getattr(self, name)
            if arn and arn_region(arn) != region:
                yield (
                    f"{name}: is in {arn_region(arn)}, the deployment in {region}; "
                    "use one of the same region"
                )


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean X?`, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def _region(value: str) -> str:
    if value not in REGIONS:
        hint = closest(value, REGIONS) or "; use one like us-east-1"
        raise ValueError(f"{value!r} is not an AWS region{hint}")
    return value


def _cidr(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r} is not a network ({error}); write it like 203.0.113.0/24"
        ) from None
    return value


def pattern(expression: str, example: str) -> AfterValidator:
    """A validator that shows an example instead of a regular expression."""

    def check(value: str) -> str:
        if not re.fullmatch(expression, value):
            raise ValueError(f"{value!r} is not of the form {example}")
        return value

    return AfterValidator(check)


Region = Annotated[str, AfterValidator(_region)]
Cidr = Annotated[str, AfterValidator(_cidr)]
VpcId = Annotated[str, pattern(r"vpc-[0-9a-f]{8,17}", "vpc-0123456789abcdef0")]
SubnetId = Annotated[str, pattern(r"subnet-[0-9a-f]{8,17}", "subnet-0123456789abcdef0")]
AmiId = Annotated[str, pattern(r"ami-[0-9a-f]{8,17}", "ami-0123456789abcdef0")]
CertificateArn = Annotated[
    str,
    pattern(
        r"arn:aws:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]+",
        "arn:aws:acm:us-east-1:123456789012:certificate/0123...",
    ),
]
KmsKeyArn = Annotated[
    str,
    pattern(
        r"arn:aws:kms:[a-z0-9-]+:\d{12}:key/[0-9a-f-]+",
        "arn:aws:kms:us-east-1:123456789012:key/0123...",
    ),
]
ParameterName = Annotated[
    str, pattern(r"/[A-Za-z0-9_.\-/]+", "/stable-diffusion/api-keys (an SSM SecureString)")
]
ImageUri = Annotated[
    str,
    pattern(
        r"[a-z0-9.\-]+(:\d+)?(/[a-z0-9._\-]+)+(:[\w][\w.\-]{0,127}|@sha256:[0-9a-f]{64})",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/name:tag (with its tag or digest)",
    ),
]


def arn_region(arn: str) -> str:
    """The region an ARN is in."""
    return arn.split(":")[3]


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One `field: problem; fix` a mistake, `prefix` before each field."""
    return [_line(one, model, prefix) for one in error.errors()]


def _line(error: Any, model: type[BaseModel], prefix: str) -> str:
    where = ".".join(str(part) for part in error["loc"])
    name = str(error["loc"][0]) if error["loc"] else ""
    if not where:
        # a check across fields names its own field: "max_instances: ..."
        return prefix + str(error["ctx"]["error"] if "ctx" in error else error["msg"])
    return f"{prefix}{where}: {_problem(error, name, model)}"


def _problem(error: Any, name: str, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a field here" + (closest(name, model.model_fields) or _all(model))
    field = model.model_fields.get(name)
    purpose = (field.description if field else "") or ""
    if error["type"] == "missing":
        return f"is required; give {purpose}" if purpose else "is required"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    given = f" (given: {error['input']!r})"
    return str(error["msg"]).lower() + given + (f"; it is {purpose}" if purpose else "")


def _all(model: type[BaseModel]) -> str:
    return "; known are " + ", ".join(model.model_fields)
