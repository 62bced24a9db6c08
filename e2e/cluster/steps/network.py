"""The pods' network of a cluster from our own node image: each node's range, the routes between nodes, no leaks.

ptp and host-local from Debian's CNI plugins, so no daemon; kindnetd cannot be built here. NetworkPolicy is not enforced
(see the decision record). The public node image brings kindnet instead, and this step is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .. import kubectl
from ..command import Failed, ask, output_of
from .origin import decision

_SERVICES = "10.96.0.0/16"
_CONFIG = "/etc/cni/net.d/10-dspy-operator.conflist"


@dataclass(frozen=True)
class Node:
    name: str
    address: str
    pods: str
    ready: bool


class Network:
    name = "network"
    expected_seconds = 10

    def check(self) -> bool:
        nodes = _nodes()
        own = decision().choice == "built"
        return all(node.ready and (not own or _is_set_up(node, nodes)) for node in nodes)

    def run(self, log: Path) -> None:
        kubectl.kubectl("wait", "nodes", "--all", "--for=jsonpath={.spec.podCIDR}", "--timeout=60s")
        nodes = _nodes()
        for node in nodes if decision().choice == "built" else []:
            output_of(["docker", "exec", "-i", node.name, "sh", "-eu"], stdin=_script(node, nodes))
        kubectl.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=90s")
        log.write_text("".join(f"{node}\n" for node in _nodes()))
        if not self.check():
            raise Failed(f"the pods' network could not be set up; see {log}")


def _nodes() -> list[Node]:
    found = []
    for item in kubectl.read("nodes")["items"]:
        addresses = {address["type"]: address["address"] for address in item["status"].get("addresses", [])}
        conditions = {condition["type"]: condition["status"] for condition in item["status"].get("conditions", [])}
        found.append(
            Node(
                name=item["metadata"]["name"],
                address=addresses.get("InternalIP", ""),
                pods=item["spec"].get("podCIDR", ""),
                ready=conditions.get("Ready") == "True",
            )
        )
    return found


def _others(node: Node, nodes: list[Node]) -> list[Node]:
    return [other for other in nodes if other.name != node.name]


def _is_set_up(node: Node, nodes: list[Node]) -> bool:
    lines = [f"test -s {_CONFIG}", f"iptables -C FORWARD -d {_SERVICES} -j REJECT"]
    lines += [f"ip route show {other.pods} | grep -q 'via {other.address}'" for other in _others(node, nodes)]
    return ask(["docker", "exec", node.name, "sh", "-euc", "\n".join(lines)])[0] == 0


def _script(node: Node, nodes: list[Node]) -> str:
    """An address of a Service that kube-proxy has not programmed would leave the node, and whatever it meets outside would
    answer in its place. After kube-proxy's translation no packet bears one, so the rest is refused."""
    lines = [f"cat >{_CONFIG}.tmp <<'END'\n{json.dumps(_config(node), indent=2)}\nEND", f"mv {_CONFIG}.tmp {_CONFIG}"]
    lines += [f"ip route replace {other.pods} via {other.address}" for other in _others(node, nodes)]
    for chain in ("FORWARD", "OUTPUT"):
        rule = f"{chain} -d {_SERVICES} -j REJECT"
        lines.append(f"iptables -C {rule} 2>/dev/null || iptables -A {rule}")
    return "\n".join(lines)


def _config(node: Node) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "static",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "ranges": [[{"subnet": node.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
