"""What one IP family does after a sync: flows that have become wrong are forgotten."""

from typing import Any, cast

import msgspec
import pytest

from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.base.net import Family
from svcplane.kernel.conntrack.text import Entry
from svcplane.proxy import family as family_module
from svcplane.proxy.family import FamilyProxy
from svcplane.proxy.metrics import Metrics
from svcplane.proxy.model import NodeConfig, ProxyState, ServicePortName
from svcplane.proxy.plane import Plane, SyncReport

VIP = "10.96.0.10"
SERVICE = {
    "metadata": {"name": "dns", "namespace": "default"},
    "spec": {"clusterIP": VIP, "ports": [{"protocol": "UDP", "port": 53}]},
}
SLICE = {
    "metadata": {"name": "dns-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "dns"}},
    "addressType": "IPv4",
    "ports": [{"protocol": "UDP", "port": 53}],
    "endpoints": [{"addresses": ["10.244.1.11"]}],
}
NOW, BEFORE = ("172.30.0.11", 40001), ("172.30.0.11", 40000)


class Relay:
    """A plane that relays, and listens at one port."""

    mode = "userspace"

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        return SyncReport((), 0, touched is None)

    def relays(self, name: ServicePortName) -> frozenset[tuple[str, int]]:
        return frozenset({NOW} if name.name == "dns" else ())


@pytest.mark.parametrize(
    ("mode", "kept", "gone"),
    [
        ("nftables", ("10.244.1.11", 53), [NOW, BEFORE, ("10.244.1.12", 53), (VIP, 53)]),
        ("userspace", NOW, [("10.244.1.11", 53), BEFORE, ("10.244.1.12", 53), (VIP, 53)]),
    ],
)
async def test_flows_are_forgotten_that_lead_to_nobody_who_answers(
    monkeypatch: pytest.MonkeyPatch, mode: str, kept: tuple[str, int], gone: list[tuple[str, int]]
) -> None:
    deleted: list[tuple[str, int]] = []

    async def flows(family: Family, protocol: str) -> list[Entry]:
        ends = [kept, *gone] if protocol == "udp" else []
        return [Entry("10.244.1.9", VIP, 4000 + at, 53, *_answer(end, at)) for at, end in enumerate(ends)]

    def _answer(end: tuple[str, int], at: int) -> tuple[Any, ...]:
        return end[0], "10.244.1.9", end[1], 4000 + at

    async def delete(family: Family, protocol: str, to: tuple[str, int], answered_by: tuple[str, int]) -> int:
        assert to == (VIP, 53)
        deleted.append(answered_by)
        return 1

    monkeypatch.setattr(family_module.conntrack_run, "flows", flows)
    monkeypatch.setattr(family_module.conntrack_run, "delete", delete)
    family = FamilyProxy(NodeConfig("n1", Family.IPV4), Metrics())
    family.mode, family.plane = mode, cast("Plane", Relay())
    family.tracker.service_changed(None, msgspec.convert(SERVICE, Service))
    family.tracker.slice_changed(None, msgspec.convert(SLICE, EndpointSlice))
    assert await family.sync() is not None
    assert deleted == gone
