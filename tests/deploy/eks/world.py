"""A small stand-in for AWS, Kubernetes, helm and Terraform, with what holds what in them.

Called as one of their programs; `WORLD` names the file with its state. It refuses what the real
ones refuse: a VPC with something in it, a security group that a rule names, a role in a profile, a
gateway without its controller.
`KILL_AT=N` ends the caller (its whole process group) right after the Nth call had its effect.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

State = dict[str, Any]
#: `nodes`: those that controllers run on; `hidden`: kubectl cannot reach the cluster that is there.
FRESH: State = {
    "calls": 0,
    "cluster": False,
    "nodes": False,
    "hidden": False,
    "charts": [],
    "things": {},
}
#: What the load balancer controller makes of a gateway, and Karpenter of a pod without a node.
OF_GATEWAY = {"arn:lb": "loadbalancer", "arn:tg": "targetgroup", "sg-1": "security group"}
OF_NODES = {"i-1": "instance", "lt-1": "launch template", "profile-1": "profile"}


class Refused(Exception):
    """The program ends with status 1 and these words."""


def main(program: str, words: list[str]) -> str:
    """What the program prints."""
    path = Path(os.environ["WORLD"])
    state: State = json.loads(path.read_text()) if path.exists() else FRESH
    state["calls"] += 1
    try:
        answer = PROGRAMS[program](state, words)
    finally:
        path.write_text(json.dumps(state))
    if state["calls"] == int(os.environ.get("KILL_AT", "0")):
        os.killpg(0, signal.SIGKILL)
    return answer


def terraform(state: State, words: list[str]) -> str:
    if words[0] == "apply":
        state["cluster"] = state["nodes"] = True
    if words[0] == "destroy":
        if state["nodes"]:  # the CNI leaves interfaces of nodes behind, detached
            state["things"] |= {"eni-1": "interface"}
        state["nodes"] = False
        if state["things"]:
            raise Refused(f"DependencyViolation: {state['things']}")
        state["cluster"] = False
    return "interruptions" if "output" in words else ""


def aws(state: State, words: list[str]) -> str:
    service, operation = words[0], words[1]
    if (service, operation) == ("eks", "update-kubeconfig") and not state["cluster"]:
        raise Refused("ResourceNotFoundException")
    if (service, operation) == ("eks", "describe-nodegroup") and not state["nodes"]:
        raise Refused("ResourceNotFoundException")
    text = " ".join(words)
    return AWS.get((service, operation), lambda *_: "")(state, text)


def named(state: State, text: str, kind: str) -> str:
    return " ".join(name for name, its in state["things"].items() if its == kind)


def delete(state: State, text: str) -> str:
    for name in [name for name in state["things"] if name in text.split()]:
        kind = state["things"][name]
        if kind == "security group" and state.get("rule"):
            raise Refused("DependencyViolation: a rule of the nodes' group names it")
        if kind == "profile" and not state.pop("profile free", False):
            raise Refused("DeleteConflict: remove roles first")
        if kind == "targetgroup" and "loadbalancer" in state["things"].values():
            raise Refused("ResourceInUse")
        del state["things"][name]
    return ""


def terminate(state: State, text: str) -> str:
    """As `delete`; a Karpenter that lives starts another."""
    delete(state, text)
    if state["nodes"] and "karpenter" in state["charts"]:
        state["things"]["i-2"] = "instance"
    return ""


def delete_nodes(state: State, _: str) -> str:
    state["nodes"] = False
    return ""


def revoke(state: State, _: str) -> str:
    state["rule"] = False
    return ""


def groups(state: State, text: str) -> str:
    if "ip-permission" in text:
        return "sg-nodes" if state.get("rule") else ""
    return named(state, text, "security group")


def free(state: State, _: str) -> str:
    state["profile free"] = True
    return ""


Call = Callable[[State, str], str]
AWS: dict[tuple[str, str], Call] = {
    ("service-quotas", "get-service-quota"): lambda *_: "1000.0",
    ("ec2", "describe-instance-type-offerings"): lambda *_: "g6.xlarge g5.xlarge",
    ("ec2", "describe-instances"): lambda s, t: named(s, t, "instance"),
    ("ec2", "terminate-instances"): terminate,
    ("ec2", "describe-network-interfaces"): lambda s, t: named(s, t, "interface"),
    ("ec2", "delete-network-interface"): delete,
    ("eks", "delete-nodegroup"): delete_nodes,
    ("ec2", "describe-launch-templates"): lambda s, t: named(s, t, "launch template"),
    ("ec2", "delete-launch-template"): delete,
    ("ec2", "describe-security-groups"): groups,
    ("ec2", "describe-security-group-rules"): lambda *_: "sgr-1",
    ("ec2", "revoke-security-group-ingress"): revoke,
    ("ec2", "delete-security-group"): delete,
    ("iam", "list-instance-profiles-for-role"): lambda s, t: named(s, t, "profile"),
    ("iam", "remove-role-from-instance-profile"): free,
    ("iam", "delete-instance-profile"): delete,
    ("resourcegroupstaggingapi", "get-resources"): lambda s, t: named(
        s, t, "loadbalancer" if "elasticloadbalancing:loadbalancer" in t else "targetgroup"
    ),
    ("elbv2", "delete-load-balancer"): delete,
    ("elbv2", "delete-target-group"): delete,
}


def helm(state: State, words: list[str]) -> str:
    if words[0] == "upgrade":
        state["charts"].append(words[2])
    elif words[1] in state["charts"]:
        state["charts"].remove(words[1])
    return ""


def kubectl(state: State, words: list[str]) -> str:
    if not state["cluster"] or state["hidden"]:
        raise Refused("no such host")
    if words[0] == "apply" and "-k" in words:
        state["things"] |= OF_GATEWAY | OF_NODES
        state["rule"] = True
    if words[0] == "delete":
        remove(state, words[1])
    return ""


def remove(state: State, kind: str) -> None:
    """By its controller; without one it stays, and kubectl's wait ends with an error."""
    chart, made = {
        "gateways.gateway.networking.k8s.io": ("aws-load-balancer-controller", OF_GATEWAY),
        "nodepools.karpenter.sh": ("karpenter", OF_NODES),
    }.get(kind, ("", {}))
    if not made.keys() & state["things"].keys():
        return
    if chart not in state["charts"]:
        raise Refused("timed out waiting for the condition")
    for name in made:
        state["things"].pop(name, None)
    if chart != "karpenter":
        state["rule"] = False


PROGRAMS: dict[str, Callable[[State, list[str]], str]] = {
    "terraform": terraform,
    "aws": aws,
    "kubectl": kubectl,
    "helm": helm,
}

if __name__ == "__main__":
    if not sys.stdin.isatty():
        sys.stdin.read()
    try:
        print(main(Path(sys.argv[1]).name, sys.argv[2:]))
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(1)
