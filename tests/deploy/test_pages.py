"""deploy/README.md shows the code as it is."""

from __future__ import annotations

from pathlib import Path

from deploy.diagram import mermaid, references
from deploy.diagram import read as read_module
from deploy.pages import PAGE, PARTS, RATES, render
from tests.deploy.conftest import ROOT

TERRAFORM = ROOT / "deploy/operators/aws-ec2/sd_aws_ec2/terraform"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    for name in PARTS:
        assert f"<!-- generated: {name} -->" in page
    assert render(page) == page, "make deploy-pages"


def test_arrows_follow_locals(tmp_path: Path) -> None:
    (tmp_path / "a.tf").write_text(
        'locals {\n  ids = aws_subnet.b[*].id\n}\n\nresource "aws_lb" "a" {\n  x = local.ids\n}\n\n'
        'resource "aws_subnet" "b" {\n  # aws_lb.a in a comment\n  c = 1\n}\n'
    )
    module = read_module(tmp_path)
    assert references(module, module.bodies["aws_lb.a"]) == {"aws_subnet.b"}
    assert "  lb_a --> subnet_b\n" in mermaid(tmp_path)
    assert "subnet_b --> lb_a" not in mermaid(tmp_path)


def test_the_picture_of_ec2_shows_the_way_of_a_request() -> None:
    drawn = mermaid(TERRAFORM)
    for arrow in (
        "allowed([allowed_cidrs]) -.",
        "security_group_balancer -.",
        "lb_listener_http --> lb_target_group_this",
        "autoscaling_group_this --> lb_target_group_this",
        "autoscaling_group_this --> subnet_private",
    ):
        assert arrow in drawn


def test_costs_are_per_dollar() -> None:
    inf2 = next(one for one in RATES if one.instance == "inf2.xlarge")
    assert round(inf2.per_dollar) == round(3600 / 2.02 / 0.758)
