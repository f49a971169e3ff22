"""Writes what deploy/README.md shows of the code: `make deploy-pages`.

Diagrams come from the operators' Terraform, fields from their specs, costs from the catalog of
instances and the cited rates below. A test holds that the page is up to date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deploy.diagram import mermaid
from sd_aws_ec2.spec import Ec2Spec
from sd_bentoctl.instances import INSTANCES

DEPLOY = Path(__file__).resolve().parent
PAGE = DEPLOY / "README.md"


@dataclass(frozen=True)
class Rate:
    """A published time or rate, of other software than ours."""

    instance: str
    workload: str
    seconds: float
    source: str

    @property
    def per_dollar(self) -> float:
        """Images for $1 of on-demand time, the instance never idle."""
        hourly = INSTANCES[self.instance].hourly
        assert hourly
        return 3600 / self.seconds / hourly


_MLPERF = "MLPerf Inference, {}, TensorRT, FP8"
_NEURON = "Neuron SDK 2.21 release benchmarks"
RATES = (
    Rate("inf2.xlarge", "SD 1.5, 512x512, 50 steps", 2.02, _NEURON),
    Rate("inf2.xlarge", "SD 2.1, 512x512, 50 steps", 1.68, _NEURON),
    Rate("g5.xlarge", "SD 1.5, 512x512, 16 steps", 1.5, "stable-diffusion-on-eks, its README"),
    Rate("inf2.xlarge", "SDXL, 1024x1024, 50 steps", 12.05, _NEURON),
    Rate("g5.xlarge", "SDXL, 1024x1024, 30 steps", 8.16, "NVIDIA, TensorRT on an A10 (not A10G)"),
    Rate("g6.xlarge", "SDXL, 1024x1024, 20 steps", 1 / 0.25, _MLPERF.format("L4")),
    Rate("g6e.xlarge", "SDXL, 1024x1024, 20 steps", 1 / 0.69, _MLPERF.format("L40S")),
)


def costs() -> str:
    """The table of images per dollar."""
    head = "| instance | $/h | workload | s an image | images/$ | source |\n"
    return f"{head}|---|---|---|---|---|---|\n" + "".join(
        f"| {one.instance} | {INSTANCES[one.instance].hourly} | {one.workload} "
        f"| {one.seconds:.2f} | {one.per_dollar:,.0f} | {one.source} |\n"
        for one in RATES
    )


def fields() -> str:
    """The fields of aws-ec2's spec."""
    lines = ["| field | meaning | default |", "|---|---|---|"]
    for name, field in Ec2Spec.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        lines.append(f"| `{name}` | {field.description} | {default} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    return "" if default in (None, ()) else f"`{str(default).lower()}`"


def _diagram(operator: str) -> str:
    folder = next((DEPLOY / "operators" / operator).glob("*/terraform"))
    return f"```mermaid\n{mermaid(folder)}```\n"


PARTS = {
    "costs": costs,
    "fields aws-ec2": fields,
    "diagram aws-ec2": lambda: _diagram("aws-ec2"),
}


def render(page: str) -> str:
    """The page with every generated part written anew."""
    for name, part in PARTS.items():
        marks = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        between = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
        text = f"{marks[0]}\n{part()}{marks[1]}"
        page = between.sub(lambda _, text=text: text, page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
