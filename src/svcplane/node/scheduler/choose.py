"""Which node a Pod should run on.  Pure.

A node qualifies if it is ready, not marked unschedulable, has no taint that keeps Pods off, and carries the Pod's
nodeSelector labels.  Of those, the one with the fewest Pods wins; among equals the first by name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.api.core import Node, Pod

KEEPS_OFF = ("NoSchedule", "NoExecute")
MAX_PODS = 110


@dataclass(frozen=True, slots=True)
class Choice:
    """A node's name, or why there is none (in the words of the default scheduler's event)."""

    node: str = ""
    reason: str = ""


def obstacle(pod: Pod, node: Node, load: int) -> str:
    """Why a Pod cannot go to a node; "" if it can."""
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
    if node.spec.unschedulable:
        return "node(s) were unschedulable"
    if not ready:
        return "node(s) were not ready"
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node.spec.taints:
        if taint.effect in KEEPS_OFF:
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    if load >= int(node.status.allocatable.get("pods", MAX_PODS)):
        return "Too many pods"
    return ""


def choose(pod: Pod, nodes: Iterable[Node], load: Mapping[str, int]) -> Choice:
    """The node for a Pod.  `load`: Pods by node name."""
    fit, against, total = [], Counter[str](), 0
    for node in nodes:
        total += 1
        name = node.metadata.name
        why = obstacle(pod, node, load.get(name, 0))
        if why:
            against[why] += 1
        else:
            fit.append((load.get(name, 0), name))
    if fit:
        return Choice(node=min(fit)[1])
    if not total:
        return Choice(reason="no nodes available to schedule pods")
    parts = ", ".join(f"{count} {why}" for why, count in sorted(against.items()))
    return Choice(reason=f"0/{total} nodes are available: {parts}.")


def load_of(pods: Iterable[Pod]) -> dict[str, int]:
    """Pods by node, finished ones left out."""
    return dict(
        Counter(p.spec.node_name for p in pods if p.spec.node_name and p.status.phase not in ("Succeeded", "Failed"))
    )
