"""The short way for Pods that change where they stand: edit their slices, look at nothing else.  Pure.

A full plan walks all Pods and slices of a Service.  Where a Pod that is in a slice is still wanted there, with the
same ports, editing that slice is what the plan would come to; anything else takes the plan.
"""

from collections.abc import Mapping, Sequence

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.slices import plan as full
from svcplane.controllers.slices.hints import add_hints, is_auto


class Placed:
    """In which slices the Pods of one Service are, after a full plan has been carried out."""

    def __init__(self, service: Service, slices: Mapping[str, EndpointSlice]) -> None:
        self.service = service
        self._where: dict[tuple[str, str], str] = {}  # family, uid -> slice
        for name, slice_ in slices.items():
            for endpoint in slice_.endpoints or ():
                if endpoint.target_ref is not None:
                    self._where[slice_.address_type, endpoint.target_ref.uid] = name

    def __len__(self) -> int:
        return len(self._where)

    def has(self, pod: Pod) -> bool:
        families = self.service.spec.ip_families or ["IPv4"]
        return any((family, pod.metadata.uid) in self._where for family in families)

    def edit(
        self,
        pods: Sequence[Pod],
        nodes: Mapping[str, Node],
        slices: Mapping[str, EndpointSlice],
        trigger_time: str,
    ) -> list[full.Tree] | None:
        """The slices to write for these changed Pods; None: a full plan is needed."""
        service = self.service
        if is_auto(service):
            return None  # any change of readiness can move hints between all slices
        edited: dict[str, full.Tree] = {}
        for family in service.spec.ip_families or ["IPv4"]:
            wanted, skipped = full.desired(service, pods, nodes, family)
            if skipped:
                return None
            places = {uid: (ports, endpoint) for ports, group in wanted.items() for uid, endpoint in group.items()}
            for pod in pods:
                uid = pod.metadata.uid
                name = self._where.get((family, uid))
                if name is None and uid not in places:
                    continue
                if name is None or uid not in places or name not in slices:
                    return None
                tree = edited.get(name) or full.to_tree(slices[name])
                edited[name] = tree
                if not _replace(tree, uid, *places[uid]):
                    return None
        changed = []
        for name, tree in edited.items():
            add_hints(service, [tree], [], nodes)
            if tree["endpoints"] != full.to_tree(slices[name])["endpoints"]:
                full.stamp(tree, trigger_time)
                changed.append(tree)
        return changed


def _replace(tree: full.Tree, uid: str, ports: full.PortMap, new: full.Tree) -> bool:
    """Whether the endpoint was found in a slice with these ports, and is still the same one."""
    if full.port_map(tree) != tuple(sorted(ports)):
        return False
    for index, endpoint in enumerate(tree["endpoints"]):
        if endpoint.get("targetRef", {}).get("uid") == uid and full.identity(endpoint) == full.identity(new):
            tree["endpoints"][index] = new
            return True
    return False
