"""Patches on the gateway and its routes: who may come in, TLS, and which service answers what."""

from __future__ import annotations

from typing import Any

from sd_aws_eks.patching import Changes, Document, patch
from sd_aws_eks.placement import TREE, Placement
from sd_aws_eks.spec import FORGET_S, EksSpec


def patches(spec: EksSpec, timeout_s: int) -> list[Document]:
    """On the load balancer's configuration."""
    changes: Changes = [
        ("/spec/scheme", spec.scheme),
        # never empty: the controller takes that for the whole world
        ("/spec/sourceRanges", list(spec.allowed_cidrs) or [spec.vpc_cidr]),
        ("/spec/loadBalancerAttributes/0/value", str(timeout_s)),
    ]
    if spec.vpc_id:  # by name: what tags its subnets have is their owner's
        subnets = [{"identifier": one} for one in spec.balancer_subnet_ids]
        changes.append(("/spec/loadBalancerSubnets", subnets))
    if spec.certificate_arn:
        listener = {
            "protocolPort": "HTTPS:443",
            "defaultCertificate": spec.certificate_arn,
            "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        }
        changes.append(("/spec/listenerConfigurations", [listener]))
    if spec.web_acl_arn:
        changes.append(("/spec/wafV2", {"webACL": spec.web_acl_arn}))
    if spec.tags:
        changes.append(("/spec/tags", dict(spec.tags)))
    return [patch("LoadBalancerConfiguration", changes)]


def shared(spec: EksSpec, timeout_s: int) -> Document:
    """The kustomization of a gateway for services in namespaces of their own."""
    ours = {"from": "Selector", "selector": {"matchLabels": {"app.kubernetes.io/part-of": TREE}}}
    opened: Changes = [
        (f"/spec/listeners/{number}/allowedRoutes/namespaces", ours)
        for number in range(2 if spec.certificate_arn else 1)
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../gateway"],
        "components": ["../../components/https"] if spec.certificate_arn else [],
        "patches": [*patches(spec, timeout_s), patch("Gateway", opened)],
    }


def of_service(spec: EksSpec, place: Placement) -> list[Document]:
    """On a service's route and target group."""
    targets = "/spec/defaultConfiguration/targetGroupAttributes/0/value"
    drain: Changes = [(targets, str(FORGET_S + spec.drain_s))]
    found = [patch("TargetGroupConfiguration", drain, TREE), *_dashboard(spec, place)]
    if not place.shares_gateway:
        return found
    parent: Changes = [("/spec/parentRefs/0/namespace", TREE)]
    if spec.certificate_arn:
        parent.append(("/spec/parentRefs/0/sectionName", "https"))
    if place.hostname:
        parent.append(("/spec/hostnames", [place.hostname]))
    return [*found, patch("HTTPRoute", [*parent, *_below(spec, place)], TREE)]


def _dashboard(spec: EksSpec, place: Placement) -> list[Document]:
    """Who sees Ray's dashboard, and where."""
    if spec.host != "ray" or spec.dashboard_users is None:
        return []
    pool = spec.dashboard_users
    config = "/spec/actions/0/authenticateCognitoConfig"
    users: Changes = [
        (f"{config}/userPoolArn", pool.user_pool_arn),
        (f"{config}/userPoolClientId", pool.client_id),
        (f"{config}/userPoolDomain", pool.domain),
    ]
    found = [patch("ListenerRuleConfiguration", users)]
    if place.shares_gateway:
        route: Changes = [
            ("/spec/parentRefs/0/namespace", TREE),
            ("/spec/rules/0/matches/0/path/value", f"{place.path}/dashboard"),
        ]
        if place.hostname:
            route.append(("/spec/hostnames", [place.hostname]))
        found.append(patch("HTTPRoute", route, "dashboard"))
    return found


def _below(spec: EksSpec, place: Placement) -> Changes:
    """The route's rules, with the service's path before theirs."""
    if not place.path:
        return []
    rest = {"type": "URLRewrite", "urlRewrite": {"path": _prefix("/")}}
    tree: list[tuple[str, list[Any]]] = [("", [rest])]
    if spec.host == "ray":
        tree = [("/ui", []), ("/serve", []), ("", [rest])]
    changes: Changes = [
        ("/spec/rules/0/matches/0/path/value", f"{place.path}/metrics"),
        (
            "/spec/rules/0/filters/0/requestRedirect/path/replaceFullPath",
            f"{place.path}/",
        ),
    ]
    for number, (path, filters) in enumerate(tree, start=1):
        changes.append((f"/spec/rules/{number}/matches/0/path/value", place.path + path))
        if filters:
            changes.append((f"/spec/rules/{number}/filters", filters))
    return changes


def _prefix(value: str) -> dict[str, str]:
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}
