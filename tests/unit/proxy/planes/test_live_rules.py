"""What each plane tells of the kernel's objects: all of ours, what each is for, and whose it is."""

import pytest

from fakeipvs import FakeKernel
from relayworkers import FakeWorkers
from svcplane.base.net import Family
from svcplane.kernel.iptables.fake import FakeIptables
from svcplane.kernel.nft.fake import FakeNft
from svcplane.kernel.nft.listing import chains
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.plane import LiveRule, Plane
from svcplane.proxy.planes.iptables.plane import IptablesPlane
from svcplane.proxy.planes.ipvs.describe import CHAINS, KINDS
from svcplane.proxy.planes.ipvs.names import Kind
from svcplane.proxy.planes.ipvs.rules import JUMPS
from svcplane.proxy.planes.nftables.plane import NftablesPlane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.relaying import Relaying

NODE_IP = "192.168.0.1"
CONFIG = NodeConfig(
    "node1",
    Family.IPV4,
    detect_local=DetectLocal.CLUSTER_CIDR,
    local_cidrs=("10.244.0.0/16",),
    primary_ips=(NODE_IP,),
    service_cidrs=("10.96.0.0/16",),
)
WEB, EMPTY, STICKY = (ServicePortName("shop", name, "http", Protocol.TCP) for name in ("web", "empty", "sticky"))
PODS = tuple(Endpoint(f"10.244.{at}.5", 8080, f"node{at}", is_local=at == 1, pod=f"shop/web-{at}") for at in (1, 2))
STATE = ProxyState(
    CONFIG,
    NodeState("node1", "", (NODE_IP, "127.0.0.1")),
    {
        WEB: ServicePort(WEB, "10.96.0.10", 80, node_port=30080),
        EMPTY: ServicePort(EMPTY, "10.96.0.11", 80),
        STICKY: ServicePort(STICKY, "10.96.0.12", 80, affinity_timeout_s=600),
    },
    {WEB: PODS, STICKY: PODS},
)


def planes(mode: str) -> tuple[Plane, Plane]:
    """The proxy's own, and another that only looks, on one kernel."""
    if mode == "nftables":
        nft = FakeNft()
        return NftablesPlane(CONFIG, nft), NftablesPlane(CONFIG, nft)
    if mode == "iptables":
        tools = FakeIptables()
        return IptablesPlane(CONFIG, tools), IptablesPlane(CONFIG, tools)
    if mode == "ipvs":
        kernel = FakeKernel()
        return kernel.plane(CONFIG), kernel.plane(CONFIG)
    nft, relaying = FakeNft(), Relaying(FakeWorkers())
    return UserspacePlane(CONFIG, nft, relaying), UserspacePlane(CONFIG, nft, relaying)


async def told(mode: str) -> list[LiveRule]:
    own, looking = planes(mode)
    assert list(await looking.rules(STATE)) == []
    await own.sync(STATE, None, now=0.0)
    found = list(await looking.rules(STATE))
    assert found == list(await own.rules(STATE)), "who looks sees what the proxy sees"
    return found


@pytest.mark.parametrize("mode", ["nftables", "iptables", "ipvs", "userspace"])
async def test_each_rule_has_a_purpose_and_those_of_services_a_name(mode: str) -> None:
    found = await told(mode)
    assert [rule for rule in found if not rule.place] == []
    # rules of chains have their text from the tool, which no fake kernel has
    assert [rule for rule in found if not rule.purpose and not rule.place.startswith("chain ")] == []
    named = {rule.service for rule in found if rule.service}
    assert {"shop/web:http", "shop/sticky:http"} <= named
    assert named <= {"shop/web:http", "shop/empty:http", "shop/sticky:http", "shop/web", "shop/sticky", "shop/empty"}
    text = "\n".join(f"{rule.place} {rule.rule}" for rule in found if rule.service.startswith("shop/web"))
    assert "10.96.0.10" in text
    if mode != "userspace":  # there the relay has the endpoints
        assert "10.244.1.5:8080" in text
        assert "10.244.2.5:8080" in text


async def test_elements_are_told_as_people_read_them() -> None:
    found = {(rule.place, rule.rule): rule for rule in await told("nftables")}
    assert found["map service-ips", "10.96.0.10:80/tcp : cluster ip, 2 endpoints"].service == "shop/web:http"
    assert (
        found["map service-ips", "10.96.0.12:80/tcp : cluster ip, 2 endpoints, affinity 600 s"].service
        == "shop/sticky:http"
    )
    assert found["set reject-ips", "10.96.0.11:80/tcp"].purpose == "no endpoint: connections are refused"
    assert {place for place, _ in found} >= {
        "set cluster-ips",
        "map endpoints",
        "map endpoints-by-id",
        "map ip-classes",
    }


LISTING = """table ip svcplane {
	comment "Services, programmed by svcplane"
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : mark
	}

	chain services {
		ip daddr @cluster-ips jump mark-for-masquerade comment "masquerade what comes from outside"
		ip daddr @nodeport-ips goto x
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
}
"""


def test_a_listing_is_read_by_chain() -> None:
    assert chains(LISTING) == {
        "services": [
            'ip daddr @cluster-ips jump mark-for-masquerade comment "masquerade what comes from outside"',
            "ip daddr @nodeport-ips goto x",
        ],
        "nat-prerouting": ["type nat hook prerouting priority dstnat; policy accept;", "jump services"],
    }


def test_every_set_and_chain_of_ipvs_mode_has_a_purpose() -> None:
    assert set(KINDS) == set(Kind)
    assert set(CHAINS) == {chain for _, _, chain in JUMPS}
